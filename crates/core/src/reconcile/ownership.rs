//! Decides whether an unknown sandbox is an orphan of this server, and whether it is left alone, put aside or removed.
//! Every such decision is made here, and nowhere else.
//!
//! Servers that share a Docker host need not share a database. A sandbox of a server that this installation does not
//! know is never touched; a sandbox of another live server of the installation is left for that server to judge.

use std::collections::{HashMap, HashSet};

use emergent_store::ServerRow;
use emergent_types::ServerId;

/// The server that made a sandbox, according to the sandbox's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Own,
    OtherLive,
    OtherDead,
    /// A server that is not of this installation.
    Unknown,
}

/// The store's record of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The workspace has no row.
    NoRow,
    /// The workspace's row says that there should be no such sandbox: the workspace is destroyed, or another
    /// provider's.
    Nothing,
    /// The workspace's row says that there should be such a sandbox.
    Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    Leave,
    /// Keep the sandbox as a leftover for a while: it was handed over to somebody.
    PutAside,
    Remove,
}

/// Decides on a sandbox that this server does not drive. `row_may_come`: the sandbox is so young that its row could be
/// on its way. `claimed`: the sandbox was made for somebody, or was handed over since. A sandbox that was handed
/// over is never removed only because its row is missing: the row may have been lost in a backup that was restored, or
/// in a power cut.
pub(crate) fn orphan(maker: Maker, row_may_come: bool, claim: Claim, claimed: bool) -> Orphan {
    match (maker, claim) {
        (Maker::Unknown | Maker::OtherLive, _) | (_, Claim::Wanted) => Orphan::Leave,
        (Maker::Own | Maker::OtherDead, Claim::NoRow) if row_may_come => Orphan::Leave,
        (Maker::Own | Maker::OtherDead, Claim::NoRow) if claimed => Orphan::PutAside,
        (Maker::Own | Maker::OtherDead, Claim::NoRow | Claim::Nothing) => Orphan::Remove,
    }
}

/// The servers that may have made a sandbox, as far as the installation knows them.
pub(crate) struct Makers {
    own: ServerId,
    alive: HashMap<ServerId, bool>,
}

impl Makers {
    /// Makes the list of makers. `acting` holds the servers that the engine itself knows to be alive.
    pub(crate) fn new(own: ServerId, servers: &[ServerRow], acting: &HashSet<ServerId>) -> Self {
        let alive = servers.iter().map(|server| (server.id, server.alive || acting.contains(&server.id)));
        Self { own, alive: alive.collect() }
    }

    pub(crate) fn of(&self, server: ServerId) -> Maker {
        match self.alive.get(&server) {
            _ if server == self.own => Maker::Own,
            Some(true) => Maker::OtherLive,
            Some(false) => Maker::OtherDead,
            None => Maker::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKERS: [Maker; 4] = [Maker::Own, Maker::OtherLive, Maker::OtherDead, Maker::Unknown];
    const CLAIMS: [Claim; 3] = [Claim::NoRow, Claim::Nothing, Claim::Wanted];

    #[test]
    fn nothing_of_another_installation_or_of_a_live_server_is_ever_touched() {
        for claim in CLAIMS {
            for maker in [Maker::Unknown, Maker::OtherLive] {
                assert_eq!(orphan(maker, false, claim, false), Orphan::Leave, "{maker:?} {claim:?}");
            }
        }
    }

    #[test]
    fn nothing_that_is_wanted_is_ever_touched() {
        for maker in MAKERS {
            assert_eq!(orphan(maker, false, Claim::Wanted, false), Orphan::Leave, "{maker:?}");
        }
    }

    #[test]
    fn what_nobody_wants_goes_once_its_row_can_no_longer_be_on_its_way() {
        for maker in [Maker::Own, Maker::OtherDead] {
            assert_eq!(orphan(maker, true, Claim::NoRow, false), Orphan::Leave);
            assert_eq!(orphan(maker, false, Claim::NoRow, false), Orphan::Remove);
            assert_eq!(orphan(maker, true, Claim::Nothing, true), Orphan::Remove);
        }
    }

    #[test]
    fn what_was_handed_over_is_never_removed_for_want_of_a_row() {
        for maker in MAKERS {
            for row_may_come in [true, false] {
                assert_ne!(orphan(maker, row_may_come, Claim::NoRow, true), Orphan::Remove, "{maker:?}");
            }
        }
        assert_eq!(orphan(Maker::Own, false, Claim::NoRow, true), Orphan::PutAside);
    }

    #[test]
    fn a_server_that_the_store_does_not_know_is_unknown() {
        let own = ServerId::generate();
        let makers = Makers::new(own, &[], &HashSet::new());
        assert_eq!(makers.of(own), Maker::Own);
        assert_eq!(makers.of(ServerId::generate()), Maker::Unknown);
    }

    #[test]
    fn a_server_that_acts_on_the_engine_is_alive_whatever_the_rows_say() {
        let id = ServerId::generate();
        let row = ServerRow {
            id,
            name: None,
            url: None,
            engines: Default::default(),
            draining: false,
            alive: false,
            created_at: Default::default(),
        };
        let maker = |acting| Makers::new(ServerId::generate(), std::slice::from_ref(&row), &acting).of(id);
        assert_eq!((maker(HashSet::new()), maker(HashSet::from([id]))), (Maker::OtherDead, Maker::OtherLive));
    }
}
