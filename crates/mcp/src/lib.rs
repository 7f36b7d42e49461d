//! A stdio MCP server as a Streamable HTTP endpoint, in both eras of the protocol.
//!
//! Start at [`child`], which says what the owner brings ([`process`] is the simplest owner: programs of this machine),
//! and at [`bridge`], the facade. A request comes in through `bridge`, is read in `envelope`, judged in `legacy` or
//! `modern`, sent in `link`, and its answer finds its way in `link/route` to an `event_buffer`, which a response's body
//! reads.

mod answer;
mod called;
mod child_connection;
mod child_record;
mod context;
mod envelope;
mod event_buffer;
mod guard;
mod legacy;
mod lines;
mod modern;
mod rpc;
mod session;
mod session_limit;
mod shared_child;

pub mod bridge;
pub mod call;
pub mod child;
pub mod config;
pub mod event;
pub mod gateway;
pub mod process;
pub mod tools;

pub use answer::BridgeBody;
pub use bridge::{Bridge, BridgeStatus};
pub use call::CallError;
pub use called::{Ambiguous, Called, Rebuilt};
pub use child::{Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher};
pub use config::{BridgeConfig, LINE_LIMIT, OUTPUT_KEPT, Sharing};
pub use event::{BridgeEvent, Era};
pub use gateway::{Catalogues, Gateway, Upstream, UpstreamBody, Upstreams};
pub use modern::{HeaderRules, header_value};
pub use process::ProcessLauncher;
pub use session::SessionOwner;
pub use session_limit::SessionLimit;
pub use tools::Tools;
