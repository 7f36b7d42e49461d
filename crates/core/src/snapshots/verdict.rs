//! What a difference between a snapshot's row and the engine means. It is asked only about snapshots that nobody works
//! with: a row between two states was then left by a process that ended.

use emergent_store::SnapshotStateWord;

/// What is to be done so that row and engine agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotVerdict {
    /// Nothing.
    Agree,
    /// The taking did not come to its end: its workspace goes on, what there is goes, and the row says so.
    Abandon,
    /// What there is goes, and so does the row.
    FinishDelete,
    /// What there is goes; the row stays.
    Clear,
    /// The row becomes `error`: the engine no longer has it.
    Lost,
}

/// What to do about a snapshot in this state, of which the engine has something or nothing.
pub(super) fn verdict(state: SnapshotStateWord, temporary: bool, in_engine: bool) -> SnapshotVerdict {
    match state {
        SnapshotStateWord::Creating => SnapshotVerdict::Abandon,
        // Its fork is over, one way or the other.
        SnapshotStateWord::Ready | SnapshotStateWord::Error if temporary => SnapshotVerdict::FinishDelete,
        SnapshotStateWord::Ready if in_engine => SnapshotVerdict::Agree,
        SnapshotStateWord::Ready => SnapshotVerdict::Lost,
        SnapshotStateWord::Deleting => SnapshotVerdict::FinishDelete,
        SnapshotStateWord::Error if in_engine => SnapshotVerdict::Clear,
        SnapshotStateWord::Error => SnapshotVerdict::Agree,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrying_a_verdict_out_once_is_enough() {
        for state in SnapshotStateWord::ALL {
            for (temporary, in_engine) in [(false, false), (false, true), (true, false), (true, true)] {
                let first = verdict(state, temporary, in_engine);
                let then = match first {
                    SnapshotVerdict::Agree => Some((state, in_engine)),
                    SnapshotVerdict::Abandon | SnapshotVerdict::Lost | SnapshotVerdict::Clear => {
                        Some((SnapshotStateWord::Error, false))
                    }
                    SnapshotVerdict::FinishDelete => None,
                };
                if let Some((state, in_engine)) = then.filter(|_| !temporary) {
                    assert_eq!(verdict(state, temporary, in_engine), SnapshotVerdict::Agree, "{first:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_snapshot_that_is_ready_and_there_is_kept() {
        for state in SnapshotStateWord::ALL {
            let kept = verdict(state, false, true) == SnapshotVerdict::Agree;
            assert_eq!(kept, state == SnapshotStateWord::Ready, "{state}");
        }
    }
}
