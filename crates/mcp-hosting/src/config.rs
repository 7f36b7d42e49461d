//! The settings of hosting, which the operator decides.

use std::time::Duration;

use emergent_provider::{Fault, ImageRef};

use crate::SecretKey;

/// The settings of hosting; the code that reads them checks them.
#[derive(Debug, Clone)]
pub struct HostingConfig {
    /// Whether servers may be hosted at all (`ENABLE_AGENT_WORKSPACES`).
    pub enabled: bool,
    /// The image of a server whose request names none (`WORKSPACE_DEFAULT_IMAGE`).
    pub default_image: ImageRef,
    /// The key that encrypts environments (`EMERGENT_SECRET_KEY`); without it none can be kept.
    pub secret_key: Option<SecretKey>,
    /// The longest body that an endpoint takes, in bytes (`EMERGENT_MCP_BODY_LIMIT`).
    pub body_limit: usize,
    /// How many sessions a server has at most (`EMERGENT_MCP_MAX_SESSIONS`).
    pub max_sessions: usize,
    /// How long a session may be unused before it ends (`EMERGENT_MCP_IDLE_MIN`).
    pub idle_after: Duration,
    /// `Host` names and `Origin` values that endpoints take besides those of this machine; `None` takes any.
    pub allowed_hosts: Option<Vec<String>>,
    /// Variables of the installation of packages, such as a mirror's address (`EMERGENT_MCP_INSTALL_ENV`).
    pub install_environment: Vec<(String, String)>,
    /// The step at which the process kills itself, for tests of crashes (`EMERGENT_FAULT`).
    pub fault: Option<Fault>,
}
