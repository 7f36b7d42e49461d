//! Whose a sandbox is that no workspace of this server accounts for, and what is to become of it: decided here, and
//! nowhere else.
//!
//! Servers that share a Docker host need not share a database. What a server made that this installation does not know
//! is never touched; what a live server of the installation made is that server's to judge.

use std::collections::HashMap;

use emergent_provider::ServerId;
use emergent_store::ServerRow;

/// Which server made a sandbox, as its label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Own,
    OtherLive,
    OtherDead,
    /// Not of this installation.
    Unknown,
}

/// What the store says of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It has no row.
    NoRow,
    /// Its row says that there should be no such sandbox: it is destroyed, or another provider's.
    Nothing,
    /// Its row says that there should be one.
    Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    Leave,
    Remove,
}

/// What to do with a sandbox that this server does not drive. `row_may_come`: it is so young that its row could be on
/// its way.
pub(crate) fn orphan(maker: Maker, row_may_come: bool, claim: Claim) -> Orphan {
    match (maker, claim) {
        (Maker::Unknown | Maker::OtherLive, _) | (_, Claim::Wanted) => Orphan::Leave,
        (Maker::Own | Maker::OtherDead, Claim::NoRow) if row_may_come => Orphan::Leave,
        (Maker::Own | Maker::OtherDead, Claim::NoRow | Claim::Nothing) => Orphan::Remove,
    }
}

/// Who made what, as far as the installation knows.
pub(crate) struct Makers {
    own: ServerId,
    alive: HashMap<ServerId, bool>,
}

impl Makers {
    pub(crate) fn new(own: ServerId, servers: &[ServerRow]) -> Self {
        Self { own, alive: servers.iter().map(|server| (server.id, server.alive)).collect() }
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
    fn nothing_of_another_installation_or_of_a_live_server_is_ever_removed() {
        for claim in CLAIMS {
            for maker in [Maker::Unknown, Maker::OtherLive] {
                assert_eq!(orphan(maker, false, claim), Orphan::Leave, "{maker:?} {claim:?}");
            }
        }
    }

    #[test]
    fn nothing_that_is_wanted_is_ever_removed() {
        for maker in MAKERS {
            assert_eq!(orphan(maker, false, Claim::Wanted), Orphan::Leave, "{maker:?}");
        }
    }

    #[test]
    fn what_nobody_wants_goes_once_its_row_can_no_longer_be_on_its_way() {
        for maker in [Maker::Own, Maker::OtherDead] {
            assert_eq!(orphan(maker, true, Claim::NoRow), Orphan::Leave);
            assert_eq!(orphan(maker, false, Claim::NoRow), Orphan::Remove);
            assert_eq!(orphan(maker, true, Claim::Nothing), Orphan::Remove);
        }
    }

    #[test]
    fn a_server_that_the_store_does_not_know_is_unknown() {
        let own = ServerId::generate();
        let makers = Makers::new(own, &[]);
        assert_eq!(makers.of(own), Maker::Own);
        assert_eq!(makers.of(ServerId::generate()), Maker::Unknown);
    }
}
