//! Decides whether a process may hold a server, from the newest record of the server's holder.

use chrono::{DateTime, Utc};
use emergent_provider::{Holder, HolderRecord};

use super::TakeOver;

/// The next step of a process that wants to hold a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Add a record with this number.
    Hold(u64),
    /// Look again later: the record with this number may belong to a live process.
    Wait(u64),
    /// Do not act: the record belongs to another process or to another data directory.
    Refuse { record: HolderRecord, alive: bool },
}

/// Judges the newest record of a server by the engine's clock. `first_seen` is the number of the record that this
/// process has been waiting for.
pub(super) fn judge(
    own: &Holder,
    record: Option<&HolderRecord>,
    now: DateTime<Utc>,
    take_over: TakeOver,
    first_seen: Option<u64>,
) -> Judgement {
    let Some(record) = record else { return Judgement::Hold(1) };
    let next = record.number + 1;
    if own.excludes(&record.holder) {
        return Judgement::Hold(next);
    }
    if first_seen.is_some_and(|seen| seen != record.number) && !record.ended {
        return Judgement::Refuse { record: record.clone(), alive: true };
    }
    // After a reboot the data directory is the same. That of a copied machine or file system is, too: it is told from
    // the original while that one is alive.
    if own.directory != record.holder.directory && take_over == TakeOver::Refused {
        return Judgement::Refuse { record: record.clone(), alive: false };
    }
    if record.may_be_alive(now) { Judgement::Wait(record.number) } else { Judgement::Hold(next) }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use emergent_types::ServerId;
    use uuid::Uuid;

    use super::*;

    fn holder(directory: &str, boot: &str, device: &str) -> Holder {
        let [directory, boot, device] = [directory, boot, device].map(str::to_owned);
        Holder { directory, boot, device, process: Uuid::new_v4(), host: "host".into(), path: "/data".into() }
    }

    fn record(holder: Holder) -> HolderRecord {
        HolderRecord { server: ServerId::generate(), holder, number: 7, ended: false, at: DateTime::UNIX_EPOCH }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn judged(own: &Holder, record: &HolderRecord, now: i64) -> Judgement {
        judge(own, Some(record), at(now), TakeOver::Refused, None)
    }

    #[test]
    fn an_engine_that_knows_no_holder_can_be_held() {
        let own = holder("d", "b", "8");
        assert_eq!(judge(&own, None, at(0), TakeOver::Refused, None), Judgement::Hold(1));
    }

    #[test]
    fn a_restart_in_the_same_directory_goes_on_at_once() {
        let own = holder("d", "b", "8");
        assert_eq!(judged(&own, &record(holder("d", "b", "8")), 1), Judgement::Hold(8));
    }

    #[test]
    fn after_a_reboot_it_waits_only_while_the_process_before_may_be_alive() {
        let own = holder("d", "another boot", "9");
        let before = record(holder("d", "b", "8"));
        assert_eq!(judged(&own, &before, 10), Judgement::Wait(7));
        assert_eq!(judged(&own, &before, 31), Judgement::Hold(8));
        assert_eq!(judged(&own, &HolderRecord { ended: true, ..before }, 10), Judgement::Hold(8));
    }

    #[test]
    fn a_copied_machine_or_file_system_is_refused_when_the_original_goes_on() {
        let before = record(holder("d", "b", "8"));
        let went_on = HolderRecord { number: 8, ..before.clone() };
        for own in [holder("d", "another boot", "8"), holder("d", "b", "9")] {
            assert_eq!(judged(&own, &before, 10), Judgement::Wait(7));
            let refused = judge(&own, Some(&went_on), at(10), TakeOver::Wanted, Some(7));
            assert!(matches!(refused, Judgement::Refuse { alive: true, .. }), "{refused:?}");
        }
    }

    #[test]
    fn a_copied_directory_is_refused_whether_the_original_is_alive_or_not() {
        let original = record(holder("d", "b", "8"));
        for copy in [holder("copy", "b", "8"), holder("copy", "another boot", "8")] {
            for now in [0, 1000] {
                let refused = judged(&copy, &original, now);
                assert!(matches!(refused, Judgement::Refuse { alive: false, .. }), "{copy:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_copy_takes_over_only_what_is_not_alive() {
        let (copy, original) = (holder("copy", "b", "8"), record(holder("d", "b", "8")));
        let judged = |now, seen| judge(&copy, Some(&original), at(now), TakeOver::Wanted, seen);
        assert_eq!(judged(10, None), Judgement::Wait(7));
        assert_eq!(judged(40, Some(7)), Judgement::Hold(8));
        assert!(matches!(judged(10, Some(6)), Judgement::Refuse { alive: true, .. }));
    }
}
