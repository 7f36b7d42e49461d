//! A stdio MCP server as a Streamable HTTP endpoint, in both eras of the protocol.
//!
//! Start at [`child`], which says what the owner brings ([`process`] is the simplest owner: programs of this machine),
//! and at [`bridge`], the facade. A request comes in through `bridge`, is read in `envelope`, judged in `legacy` or
//! `modern`, and sent in `child_connection`; its answer finds its way in `child_connection/route` to an `event_buffer`,
//! which a response's body reads. `bridge_state` has what these share: the sessions and the children.

mod answer;
mod bridge_state;
mod called;
mod child_connection;
mod child_record;
mod context;
mod elements;
mod envelope;
mod event_buffer;
mod handshake;
mod headers;
mod legacy;
mod lines;
mod modern;
mod origin_guard;
mod rpc;
mod session;
mod session_client;
mod session_limit;
mod shared_child;
mod versions;

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
pub use headers::{HeaderRules, header_value};
pub use process::ProcessLauncher;
pub use session::SessionOwner;
pub use session_limit::SessionLimit;
pub use tools::Tools;
