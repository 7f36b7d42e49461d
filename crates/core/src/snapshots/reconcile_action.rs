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

/// Decides on a snapshot in this state; `in_engine` says whether the engine has anything of it.
pub(super) fn verdict(state: SnapshotStateKind, temporary: bool, in_engine: bool) -> SnapshotReconcileAction {
    match state {
        SnapshotStateKind::Creating => SnapshotReconcileAction::Abandon,
        // Its fork is over, one way or the other.
        SnapshotStateKind::Ready | SnapshotStateKind::Error if temporary => SnapshotReconcileAction::FinishDelete,
        SnapshotStateKind::Ready if in_engine => SnapshotReconcileAction::Agree,
        SnapshotStateKind::Ready => SnapshotReconcileAction::Lost,
        SnapshotStateKind::Deleting => SnapshotReconcileAction::FinishDelete,
        SnapshotStateKind::Error if in_engine => SnapshotReconcileAction::Clear,
        SnapshotStateKind::Error => SnapshotReconcileAction::Agree,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrying_a_verdict_out_once_is_enough() {
        for state in SnapshotStateKind::ALL {
            for (temporary, in_engine) in [(false, false), (false, true), (true, false), (true, true)] {
                let first = verdict(state, temporary, in_engine);
                let then = match first {
                    SnapshotReconcileAction::Agree => Some((state, in_engine)),
                    SnapshotReconcileAction::Abandon
                    | SnapshotReconcileAction::Lost
                    | SnapshotReconcileAction::Clear => Some((SnapshotStateKind::Error, false)),
                    SnapshotReconcileAction::FinishDelete => None,
                };
                if let Some((state, in_engine)) = then.filter(|_| !temporary) {
                    assert_eq!(verdict(state, temporary, in_engine), SnapshotReconcileAction::Agree, "{first:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_snapshot_that_is_ready_and_there_is_kept() {
        for state in SnapshotStateKind::ALL {
            let kept = verdict(state, false, true) == SnapshotReconcileAction::Agree;
            assert_eq!(kept, state == SnapshotStateKind::Ready, "{state}");
        }
    }
}
