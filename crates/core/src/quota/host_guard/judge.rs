//! Whether a sandbox takes too much disk, from one count of its files to the next. Pure.

use crate::workspace::fullness::Fullness;

/// How much more than its limit a sandbox may have before it is ended: what lies between two looks, and what is counted
/// less exactly.
const MARGIN: u64 = 8 << 20;
/// How much a sandbox may grow while its machine's disk is nearly full.
const GROWTH: u64 = 4 << 20;

/// The facts about a sandbox's files that earlier looks have left.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How much they took when the machine last had room.
    base: Option<u64>,
    /// The sandbox was ended for its own limit, and its files are not below the limit again.
    over: Option<Over>,
    /// The sandbox was ended for its machine's disk, which still has no room.
    is_host_full: bool,
}

/// The state of a sandbox that was ended for its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The count stopped at the limit, so the sandbox's full size is unknown.
    Uncounted,
    /// How much its files took when they were last counted wholly, or when it was ended again.
    Counted(u64),
}

/// The decision about a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The sandbox may write.
    Fine,
    /// The sandbox goes on as it is.
    Unchanged,
    /// The sandbox may not write.
    Full(Fullness),
    /// The sandbox may not write, and does.
    End(Fullness),
}

impl Seen {
    /// From where on a count need not go on.
    pub(super) fn enough(&self, limit: u64) -> u64 {
        // Whether one that was ended grows is seen only in all of it.
        if self.over.is_some() { u64::MAX } else { ends_above(limit) }
    }

    /// Judges a count. `is_low`: the machine's disk is nearly full.
    pub(super) fn judge(&mut self, used: u64, limit: u64, is_low: bool) -> Judgement {
        match self.over {
            _ if used <= limit => self.over = None,
            None if used > ends_above(limit) => {
                self.over = Some(Over::Uncounted);
                return Judgement::End(Fullness::Own { limit });
            }
            None => {}
            Some(Over::Uncounted) => self.over = Some(Over::Counted(used)),
            // It runs again to have files removed: it is ended once more only if it grows.
            Some(Over::Counted(before)) if used > ends_above(limit).max(before.saturating_add(GROWTH)) => {
                self.over = Some(Over::Counted(used));
                return Judgement::End(Fullness::Own { limit });
            }
            Some(Over::Counted(_)) => {}
        }
        if !is_low {
            self.is_host_full = false;
            self.base = Some(used);
        } else if used > self.base.get_or_insert(used).saturating_add(GROWTH) {
            self.is_host_full = true;
            self.base = Some(used);
            return Judgement::End(Fullness::Host);
        }
        match self.over {
            Some(_) => Judgement::Full(Fullness::Own { limit }),
            None if self.is_host_full => Judgement::Full(Fullness::Host),
            // A restarted server knows from the row that it was full, and leaves it so until there is room.
            None if used > limit => Judgement::Unchanged,
            None => Judgement::Fine,
        }
    }
}

/// A sandbox whose files take more than this is ended.
fn ends_above(limit: u64) -> u64 {
    limit.saturating_add(MARGIN.max(limit / 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 100 * MIB;
    const OWN: Fullness = Fullness::Own { limit: LIMIT };

    #[test]
    fn a_sandbox_over_its_limit_is_ended_once_and_may_write_when_it_is_below_again() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge(100 * MIB, LIMIT, false), Judgement::Fine);
        assert_eq!(seen.judge(105 * MIB, LIMIT, false), Judgement::Unchanged, "within the margin");
        assert_eq!(seen.judge(150 * MIB, LIMIT, false), Judgement::End(OWN));
        assert_eq!(seen.judge(150 * MIB, LIMIT, false), Judgement::Full(OWN), "it runs to have files removed");
        assert_eq!(seen.judge(160 * MIB, LIMIT, false), Judgement::End(OWN), "it writes on all the same");
        assert_eq!(seen.judge(104 * MIB, LIMIT, false), Judgement::Full(OWN));
        assert_eq!(seen.judge(90 * MIB, LIMIT, false), Judgement::Fine);
    }

    #[test]
    fn a_count_that_is_cut_short_ends_a_sandbox_as_a_whole_one_does() {
        let mut seen = Seen::default();
        let enough = seen.enough(LIMIT);
        assert_eq!(seen.judge(enough, LIMIT, false), Judgement::Unchanged);
        assert_eq!(seen.judge(enough + 1, LIMIT, false), Judgement::End(OWN));
        assert_eq!(seen.enough(LIMIT), u64::MAX, "what it has in truth is seen next");
        assert_eq!(seen.judge(500 * MIB, LIMIT, false), Judgement::Full(OWN), "it has not grown since");
        assert_eq!(seen.judge(510 * MIB, LIMIT, false), Judgement::End(OWN));
    }

    #[test]
    fn whoever_grows_while_the_machine_is_nearly_full_is_ended_and_others_are_not() {
        let (mut writer, mut other) = (Seen::default(), Seen::default());
        for seen in [&mut writer, &mut other] {
            assert_eq!(seen.judge(10 * MIB, LIMIT, false), Judgement::Fine);
        }
        assert_eq!(other.judge(11 * MIB, LIMIT, true), Judgement::Fine);
        assert_eq!(writer.judge(13 * MIB, LIMIT, true), Judgement::Fine);
        assert_eq!(writer.judge(15 * MIB, LIMIT, true), Judgement::End(Fullness::Host), "slowly, too");
        assert_eq!(writer.judge(15 * MIB, LIMIT, true), Judgement::Full(Fullness::Host));
        assert_eq!(writer.judge(15 * MIB, LIMIT, false), Judgement::Fine);
    }
}
