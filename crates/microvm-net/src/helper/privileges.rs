//! Giving up everything but `CAP_NET_ADMIN`.

use std::str::FromStr;

use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::{self, CapabilitySet, CapabilitySets},
};

/// The capability that the helper keeps.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// A text that is no [`User`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user is UID or UID:GID, in numbers")]
pub struct InvalidUser;

/// The privilege that could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed; start the helper as root, or with CAP_NET_ADMIN in its ambient set and without --user")]
pub struct PrivilegeError {
    what: &'static str,
    #[source]
    source: Errno,
}

/// Leaves this thread, and every thread and program that it starts, with `CAP_NET_ADMIN` alone, as another user if one
/// is named; there is no way back. To be called while the process has no other thread, which would keep everything.
///
/// # Errors
/// Where the process has not the privileges to do so: it should then end.
pub fn keep_only_net_admin(user: Option<User>) -> Result<(), PrivilegeError> {
    let failed = |what| move |source| PrivilegeError { what, source };
    bound()?;
    if let Some(User { uid, gid }) = user {
        // A change of user drops what is permitted unless this is set; the kernel unsets it at the next program.
        thread::set_keep_capabilities(true).map_err(failed("keeping capabilities"))?;
        thread::set_thread_groups(&[]).map_err(failed("leaving the groups"))?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        thread::set_thread_res_gid(gid, gid, gid).map_err(failed("changing the group"))?;
        thread::set_thread_res_uid(uid, uid, uid).map_err(failed("changing the user"))?;
    }
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: KEPT };
    thread::set_capabilities(None, sets).map_err(failed("giving up capabilities"))?;
    // For the programs that are started: nft and iptables.
    thread::configure_capability_in_ambient_set(KEPT, true).map_err(failed("passing CAP_NET_ADMIN on"))?;
    thread::set_no_new_privs(true).map_err(failed("refusing new privileges"))
}

/// Takes everything else out of the bounding set too, where this process may. Where it may not it has nothing that the
/// set could give back: what follows forbids new privileges.
fn bound() -> Result<(), PrivilegeError> {
    let failed = |what| move |source| PrivilegeError { what, source };
    let own = thread::capabilities(None).map_err(failed("reading capabilities"))?;
    if !own.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    let every = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in every.filter(|capability| *capability != KEPT) {
        // Beyond the last one the kernel answers with an error.
        if thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            thread::remove_capability_from_bounding_set(capability).map_err(failed("bounding the capabilities"))?;
        }
    }
    Ok(())
}

// === impl User ===

impl FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number != u32::MAX).ok_or(InvalidUser);
        Ok(Self { uid: number(uid)?, gid: number(gid)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers() {
        assert_eq!("65534".parse(), Ok(User { uid: 65534, gid: 65534 }));
        assert_eq!("1:2".parse(), Ok(User { uid: 1, gid: 2 }));
        for text in ["", "nobody", "1:", "-1", "4294967295", "1:2:3"] {
            assert_eq!(text.parse::<User>(), Err(InvalidUser), "{text}");
        }
    }
}
