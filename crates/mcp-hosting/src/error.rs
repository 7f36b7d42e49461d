//! The errors of hosting. `Display` never repeats the cause; print the chain.

use emergent_core::NoRoom;
use emergent_mcp::LaunchError;
use emergent_provider::{ImageRef, OperationError};
use emergent_store::{McpServerState, QuotaReached, StoreError};

/// The reason for which a server was not registered, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostingError {
    /// Workspaces, and so hosted servers, are switched off.
    #[error("hosting is switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The project has no such server.
    #[error("there is no such MCP server")]
    NotFound,
    /// The project has a server of this name.
    #[error("there is an MCP server called {0:?} already; choose another name, or change that one")]
    NameTaken(String),
    /// The request asks for something that cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field that is to blame, such as `resource_limits.cpu`.
        field: String,
        /// The reason, such as the values that the field takes.
        message: String,
    },
    /// The project has no workspace that is to be shared.
    #[error("your project has no workspace {given:?}; `emergent workspace ls` lists them")]
    NoWorkspace {
        /// The field that names the workspace.
        field: String,
        /// The id or name that was given.
        given: String,
    },
    /// The operator does not allow the image.
    #[error("image {0} is not allowed here; WORKSPACE_ALLOWED_IMAGES says which are")]
    ImageNotAllowed(ImageRef),
    /// As many servers are hosted as may be.
    #[error(
        "{limit} MCP servers are hosted, as many as EMERGENT_MCP_MAX_SERVERS allows; remove one, or raise the setting"
    )]
    Full {
        /// The most servers that may be hosted.
        limit: u32,
    },
    /// The machine under the engine has no room for more.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The project's quota leaves no room for that much more.
    #[error(transparent)]
    OverQuota(QuotaReached),
    /// There is no key to encrypt an environment with.
    #[error(
        "an environment is kept encrypted, and there is no key; set EMERGENT_SECRET_KEY to 64 hexadecimal digits, the \
         same on every server of this database, and start the server again"
    )]
    NoKey,
    /// Another server of the installation drives the MCP server.
    #[error("another server of this installation hosts it; ask that one")]
    Elsewhere,
    /// The server takes no calls now.
    #[error("the MCP server is {state}{}", .message.as_deref().map(|message| format!(": {message}")).unwrap_or_default())]
    NotRunning {
        /// The server's state.
        state: McpServerState,
        /// The explanation of the state.
        message: Option<String>,
    },
    /// The engine failed.
    #[error("the engine could not {operation} the MCP server")]
    Engine {
        /// The operation that the engine was asked for.
        operation: &'static str,
        /// The engine's error.
        #[source]
        source: OperationError,
    },
    /// The service is going down.
    #[error("the server is shutting down; try again shortly")]
    ShuttingDown,
    /// The store failed.
    #[error("the MCP server could not be looked up or recorded")]
    Store(#[from] StoreError),
}

/// The reason for which a simple call failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerCallError {
    /// The server was not found, or does not run.
    #[error(transparent)]
    Hosting(#[from] HostingError),
    /// HTTP-based servers are called at their endpoint.
    #[error("this server is HTTP-based; call it at its MCP endpoint")]
    NotBridged,
    /// The parameters are not JSON.
    #[error("params: {0}")]
    Params(#[source] serde_json::Error),
    /// The server, or the bridge before it, answered with an error.
    #[error(transparent)]
    Call(#[from] emergent_mcp::CallError),
}

impl HostingError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

/// The error that refuses a launch for this reason.
pub(crate) fn unavailable(reason: impl Into<String>) -> LaunchError {
    LaunchError::Unavailable { reason: reason.into() }
}
