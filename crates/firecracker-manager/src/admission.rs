//! The check whether there is room for one more machine. Pure: the caller passes the host's available memory.
//! Simultaneous requests are counted one after the other and never both given the last place.

use std::collections::HashMap;

use crate::SandboxId;

/// Memory that a machine takes from the host beyond its guest's own, in MiB: the VMM and its buffers.
const OVERHEAD_MIB: u64 = 32;

/// The limits of all machines together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most machines at once.
    pub machines: usize,
    /// The most memory of all machines, in MiB.
    pub memory_mib: u64,
}

/// The places that are taken.
#[derive(Debug)]
pub struct Admission {
    budget: Budget,
    taken: HashMap<SandboxId, u64>,
}

/// The reason why there is no place. Display names a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// As many machines run as are allowed.
    #[error("{limit} sandboxes run, as many as this host takes at once; pause or delete one, or try again later")]
    Machines {
        /// The most machines at once.
        limit: usize,
    },
    /// The memory of all machines is at its limit.
    #[error(
        "the sandbox needs {needed} MiB and {free} of the {limit} MiB for sandboxes are free; pause or delete one, ask \
         for less memory, or try again later"
    )]
    Memory {
        /// The memory that the sandbox needs, in MiB.
        needed: u64,
        /// The free part of the budget, in MiB.
        free: u64,
        /// The budget, in MiB.
        limit: u64,
    },
    /// Other programs use up the host's own memory.
    #[error(
        "the sandbox needs {needed} MiB and the host has only {available} MiB available; something else uses its memory"
    )]
    Host {
        /// The memory that the sandbox needs, in MiB.
        needed: u64,
        /// The memory that the host has available, in MiB.
        available: u64,
    },
}

// === impl Admission ===

impl Admission {
    /// An admission with all places free.
    pub fn new(budget: Budget) -> Self {
        Self { budget, taken: HashMap::new() }
    }

    /// Takes a place for a machine with this much memory. `available` is the host's available memory, where known.
    /// Taking a machine's place twice takes one place.
    ///
    /// # Errors
    /// [`NoRoom`]; no place is taken then.
    pub fn take(&mut self, id: SandboxId, memory_mib: u32, available: Option<u64>) -> Result<(), NoRoom> {
        if self.taken.contains_key(&id) {
            return Ok(());
        }
        let needed = u64::from(memory_mib) + OVERHEAD_MIB;
        let Budget { machines, memory_mib: limit } = self.budget;
        let free = limit.saturating_sub(self.memory_mib());
        match () {
            () if self.taken.len() >= machines => Err(NoRoom::Machines { limit: machines }),
            () if needed > free => Err(NoRoom::Memory { needed, free, limit }),
            () => match available.filter(|available| *available < needed) {
                Some(available) => Err(NoRoom::Host { needed, available }),
                None => {
                    self.taken.insert(id, needed);
                    Ok(())
                }
            },
        }
    }

    /// Takes a place for a machine that runs already, whether there is room or not.
    pub fn adopt(&mut self, id: SandboxId, memory_mib: u32) {
        self.taken.insert(id, u64::from(memory_mib) + OVERHEAD_MIB);
    }

    /// Gives a place back; does nothing for a machine without one.
    pub fn release(&mut self, id: SandboxId) {
        self.taken.remove(&id);
    }

    /// Whether a machine has a place.
    pub fn has(&self, id: SandboxId) -> bool {
        self.taken.contains_key(&id)
    }

    /// The number of places taken.
    pub fn machines(&self) -> usize {
        self.taken.len()
    }

    /// Memory taken, in MiB.
    pub fn memory_mib(&self) -> u64 {
        self.taken.values().sum()
    }

    /// The limits of all machines together.
    pub fn budget(&self) -> Budget {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_given_back_once_and_taken_once() {
        let mut admission = Admission::new(Budget { machines: 1, memory_mib: 1024 });
        let (one, two) = (SandboxId::generate(), SandboxId::generate());
        assert_eq!(admission.take(one, 512, None), Ok(()));
        assert_eq!(admission.take(one, 512, None), Ok(()));
        assert_eq!(admission.take(two, 1, None), Err(NoRoom::Machines { limit: 1 }));
        admission.release(one);
        admission.release(one);
        assert_eq!(admission.take(two, 1, None), Ok(()));
    }

    #[test]
    fn what_the_host_does_not_have_is_not_promised() {
        let mut admission = Admission::new(Budget { machines: 9, memory_mib: 4096 });
        let refused = admission.take(SandboxId::generate(), 512, Some(100));
        assert_eq!(refused, Err(NoRoom::Host { needed: 544, available: 100 }));
        assert_eq!(admission.machines(), 0);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded(sizes in prop::collection::vec((1_u32..2000, any::<bool>()), 0..60)) {
            let budget = Budget { machines: 8, memory_mib: 4000 };
            let mut admission = Admission::new(budget);
            let mut held = Vec::new();
            for (size, release) in sizes {
                if release && let Some(id) = held.pop() {
                    admission.release(id);
                }
                let id = SandboxId::generate();
                if admission.take(id, size, None).is_ok() {
                    held.push(id);
                }
                prop_assert!(admission.machines() <= budget.machines && admission.memory_mib() <= budget.memory_mib);
                prop_assert_eq!(admission.machines(), held.len());
            }
        }
    }
}
