//! A stdio MCP server as a Streamable HTTP endpoint, in both eras of the protocol.
//!
//! Start at [`child`]: what the owner brings. [`process`] is the simplest such owner: programs of this machine.

pub mod child;
pub mod config;
pub mod event;
pub mod process;

pub use child::{Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher};
pub use config::{BridgeConfig, Sharing};
pub use event::{BridgeEvent, Era};
pub use process::ProcessLauncher;
