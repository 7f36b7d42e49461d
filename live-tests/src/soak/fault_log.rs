//! The faults that strike more than one workspace, with their times.

use std::{collections::BTreeSet, time::Instant};

use parking_lot::Mutex;

use super::fault::Fault;

/// The faults that strike more than one workspace, with their times. A fault is over when the harness has seen that all
/// is well again, so a call that begins after it has nothing to be excused with.
#[derive(Debug, Default)]
pub struct FaultLog(Mutex<Vec<Incident>>);

#[derive(Debug, Clone, Copy)]
struct Incident {
    fault: Fault,
    /// The server that the fault strikes; all when absent.
    server: Option<usize>,
    from: Instant,
    until: Option<Instant>,
}

// === impl FaultLog ===

impl FaultLog {
    /// Records that a fault is about to strike. To be ended by [`FaultLog::ended`].
    pub fn strikes(&self, fault: Fault, server: Option<usize>) {
        let incident = Incident { fault, server, from: Instant::now(), until: None };
        self.incidents(|all| all.push(incident));
    }

    /// Records that all is well again after the fault of this kind.
    pub fn ended(&self, fault: Fault) {
        let now = Instant::now();
        self.incidents(|all| {
            for incident in all.iter_mut().filter(|incident| incident.fault == fault) {
                incident.until.get_or_insert(now);
            }
        });
    }

    /// The faults that were at work on a server at any time since `from`.
    pub fn since(&self, server: usize, from: Instant) -> BTreeSet<Fault> {
        self.incidents(|all| {
            let here = all.iter().filter(|incident| incident.server.is_none_or(|struck| struck == server));
            here.filter(|incident| incident.until.is_none_or(|until| until >= from))
                .map(|incident| incident.fault)
                .collect()
        })
    }

    /// The faults that have begun on a server since `from`.
    pub fn begun_since(&self, server: usize, from: Instant) -> BTreeSet<Fault> {
        self.incidents(|all| {
            let here = all.iter().filter(|incident| incident.server.is_none_or(|struck| struck == server));
            here.filter(|incident| incident.from >= from).map(|incident| incident.fault).collect()
        })
    }

    fn incidents<T>(&self, look: impl FnOnce(&mut Vec<Incident>) -> T) -> T {
        look(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_for_whatever_overlaps_it() {
        let fault_log = FaultLog::default();
        let before = Instant::now();
        fault_log.strikes(Fault::ServerKilled, Some(1));
        assert!(fault_log.since(1, Instant::now()).contains(&Fault::ServerKilled));
        assert!(fault_log.since(0, before).is_empty(), "another server's fault");
        fault_log.ended(Fault::ServerKilled);
        assert!(fault_log.since(1, before).contains(&Fault::ServerKilled));
        assert!(fault_log.since(1, Instant::now()).is_empty(), "it is over");
    }
}
