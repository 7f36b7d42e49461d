//! The errors of making networks.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The reason for which a network could not be made. The helper passes these errors on as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NetworkError {
    /// Every address is in use.
    #[error(
        "all {capacity} addresses of the pool {pool} are in use; destroy machines, or give the network a larger pool"
    )]
    PoolExhausted {
        /// The range.
        pool: String,
        /// The number of machines that the pool has room for.
        capacity: u32,
    },
    /// The address that the machine must have is another's.
    #[error("the address {address} is another machine's; end that one first, or start this one from its disk")]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
    },
    /// The address that the machine must have is not in the pool.
    #[error("the address {address} is no machine's in the pool {pool}; give the network the pool it was made with")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The range.
        pool: String,
    },
    /// The pool is in use for something else.
    #[error("the pool {pool} overlaps the addresses of {interface}; give the network another pool")]
    PoolOverlaps {
        /// The range.
        pool: String,
        /// The interface's name.
        interface: String,
    },
    /// Two ids end alike.
    #[error("the interface {name} is another machine's; make this machine anew, with another id")]
    NameTaken {
        /// The interface.
        name: String,
    },
    /// The helper does not do this for this user.
    #[error("the network helper refused: {reason}")]
    Refused {
        /// The operation that is not allowed, and how to allow it.
        reason: String,
    },
    /// The kernel or a program that speaks to it refused.
    #[error("{doing}: {reason}")]
    Host {
        /// The step that failed.
        doing: String,
        /// The kernel's answer, and what to do where that is known.
        reason: String,
    },
    /// The helper cannot be asked.
    #[error("the network helper does not answer: {reason}; see that `emergent firecracker net-helper` runs")]
    NoHelper {
        /// The cause.
        reason: String,
    },
}

// === impl NetworkError ===

impl NetworkError {
    pub(crate) fn host(doing: impl Into<String>, reason: impl ToString) -> Self {
        // What programs say has no bound of its own.
        Self::Host { doing: doing.into(), reason: reason.to_string().chars().take(500).collect() }
    }
}
