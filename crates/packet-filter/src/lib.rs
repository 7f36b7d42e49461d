//! The parts that the packet filters of containers and of microVMs have in common.
//!
//! A sandbox with the network `outbound` reaches the internet, and nothing else. The ranges that it does not reach are
//! in [`denied_ranges`](DENIED_V4), among them the one of the metadata address 169.254.169.254. [`OutboundRules`]
//! renders them as rules of nftables, after the ranges that the operator allows and the host's name servers
//! ([`host_resolvers`]), and beside the host's [`neighbours`]. [`Nft`] applies a script of rules as one transaction, and
//! looks whether it is in force: a script has an empty chain named for its [`version`](version_of).
//!
//! The tables, their hooks, and the rules of single sandboxes differ: `emergent-provider-docker` and
//! `emergent-microvm-net` have their own.

mod denied_ranges;
mod neighbours;
mod nft;
mod outbound;
mod resolvers;
mod version;

pub use denied_ranges::{DENIED_V4, DENIED_V6, is_denied};
pub use neighbours::neighbours;
pub use nft::{Nft, ProgramError, run};
pub use outbound::{OutboundRules, REJECT};
pub use resolvers::host_resolvers;
pub use version::version_of;
