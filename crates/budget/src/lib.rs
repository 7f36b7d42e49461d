//! A budget for the calls that are under way and the bytes that they hold in memory at once, and the bounded reading of
//! bodies.
//!
//! A server has one [`Budget`]. Each request has an [`Account`] of it, which travels with the request's task. Code that
//! reads a body into memory does so with [`read`], which is bounded in bytes, in JSON values and in time, and holds
//! these bytes on the account. An account gives everything back when its last clone is dropped: the clones live as
//! long as the request is worked on and its answer is sent ([`Kept`]).

mod account;
mod exhausted;
mod growing;
mod kept;
mod ledger;
mod read;
mod values;

pub use account::{Account, Budget};
pub use exhausted::Exhausted;
pub use growing::Growing;
pub use kept::Kept;
pub use ledger::SMALL;
pub use read::{Limits, Pace, ReadError, read};
pub use values::values_in;
