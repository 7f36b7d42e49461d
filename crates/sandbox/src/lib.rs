//! The way of a sandbox from its making to a configured guest, which is the same for workspaces, members of the warm
//! pool and hosted MCP servers.
//!
//! ```text
//!  Lifecycle::create ─▶ guest_of ─▶ first_answer ─▶ configure
//!    the provider's     a client    the guest runs   the guest has what belongs to its owner
//! ```
//!
//! The rows between these steps are the callers'.

mod configure;
mod first_answer;
mod opener;

pub use configure::configure;
pub use first_answer::{FIRST_ANSWER, NoAnswer, first_answer};
pub use opener::guest_of;
