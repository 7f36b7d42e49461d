//! The server's side of the channel: typed calls to the guest of one workspace.
//!
//! A [`Guest`] keeps one HTTP/2 connection for tool calls and, once something bulky comes up, a second one for bulk.
//! Both are opened when they are first needed, shared by all calls, checked by HTTP/2 PING, and opened again when
//! they break. Which calls are then repeated is written in `call.rs` and `changes.rs`: never one that could run
//! something twice.
//!
//! Data from the guest is treated as hostile: the length of answers, headers and frames is bounded, and so is the time
//! that each call waits. Dropping a call's future never ends what the call started inside.

mod body;
mod call;
mod changes;
mod connection;
mod limits;
mod reconnector;

pub mod children;
pub mod error;
pub mod executions;
pub mod files;
pub mod form;
pub mod guest;
pub mod open;
pub mod output;
pub mod tunnel;

pub use changes::new_call_id;
pub use children::{ChildInput, ChildOutput};
pub use error::{GuestCallError, Interruption, OpenError};
pub use executions::new_execution_id;
pub use files::{ByteBody, Download};
pub use guest::Guest;
pub use open::Open;
