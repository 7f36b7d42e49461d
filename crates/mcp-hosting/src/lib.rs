//! Hosted MCP servers: somebody's program in a persistent container, kept running, and reachable as an MCP endpoint.
//!
//! Start reading at [`Hosting`], the facade. Each server has a driver (`driver`), the one task that changes it; what a
//! crash means is decided in `policy`, which is pure. The driver makes a sandbox (`sandbox`), installs a package in it
//! (`install`), and puts an endpoint before it: a [`Bridge`](emergent_mcp::Bridge) whose children are started through
//! the guest (`launcher`), or a proxy to a port inside (`proxy`). The row says what is wanted; a restart of this
//! process finds the container and its children as they are, with all that they have in memory.

mod change;
mod config;
mod driver;
mod error;
mod hosting;
mod inner;
mod install;
mod launcher;
mod proxy;
mod restart_policy;
mod sandbox;
mod server;
mod session_key;
mod shares;
mod step;
mod validate;

pub use config::{HostingConfig, InstallVariable};
pub use error::{HostingError, ServerCallError};
pub use hosting::{Hosting, Named};
pub use server::{LimitsChange, LogLines, NewServer, Server, ServerUpdate, VolumeRequest};
pub use step::HostStep;

pub use emergent_store::{
    McpPackage, McpServerExit, McpServerId, McpServerSpec, McpServerState, McpShare, PackageRegistry, RestartPolicy,
};
