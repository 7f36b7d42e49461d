//! Decides the correction of a difference between a snapshot's row and the engine. Applies only to snapshots that no
//! task works with: a row between two states was then left by a process that ended.

use emergent_store::SnapshotStateKind;

/// The correction that makes row and engine agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotReconcileAction {
    /// Do nothing: row and engine agree.
    Agree,
    /// The taking was cut short: let the workspace go on, remove the remains of the snapshot, and record the failure in
    /// the row.
    Abandon,
    /// Remove the remains of the snapshot, and then its row.
    FinishDelete,
    /// Remove the remains of the snapshot; keep the row.
    Clear,
    /// Set the row to `error`: the engine no longer has the snapshot.
    Lost,
}

// === impl SnapshotReconcileAction ===

impl SnapshotReconcileAction {
    /// Decides on a snapshot in this state; `in_engine` says whether the engine has anything of it.
    pub(super) fn choose(state: SnapshotStateKind, temporary: bool, in_engine: bool) -> Self {
        match state {
            SnapshotStateKind::Creating => Self::Abandon,
            // Its fork is over, one way or the other.
            SnapshotStateKind::Ready | SnapshotStateKind::Error if temporary => Self::FinishDelete,
            SnapshotStateKind::Ready if in_engine => Self::Agree,
            SnapshotStateKind::Ready => Self::Lost,
            SnapshotStateKind::Deleting => Self::FinishDelete,
            SnapshotStateKind::Error if in_engine => Self::Clear,
            SnapshotStateKind::Error => Self::Agree,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrying_an_action_out_once_is_enough() {
        for state in SnapshotStateKind::ALL {
            for (temporary, in_engine) in [(false, false), (false, true), (true, false), (true, true)] {
                let first = SnapshotReconcileAction::choose(state, temporary, in_engine);
                let then = match first {
                    SnapshotReconcileAction::Agree => Some((state, in_engine)),
                    SnapshotReconcileAction::Abandon
                    | SnapshotReconcileAction::Lost
                    | SnapshotReconcileAction::Clear => Some((SnapshotStateKind::Error, false)),
                    SnapshotReconcileAction::FinishDelete => None,
                };
                if let Some((state, in_engine)) = then.filter(|_| !temporary) {
                    assert_eq!(
                        SnapshotReconcileAction::choose(state, temporary, in_engine),
                        SnapshotReconcileAction::Agree,
                        "{first:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_a_snapshot_that_is_ready_and_there_is_kept() {
        for state in SnapshotStateKind::ALL {
            let kept = SnapshotReconcileAction::choose(state, false, true) == SnapshotReconcileAction::Agree;
            assert_eq!(kept, state == SnapshotStateKind::Ready, "{state}");
        }
    }
}
