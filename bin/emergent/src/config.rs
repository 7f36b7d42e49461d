//! The server's settings, checked: what [`serve`](crate::serve) is built from.

mod connections;
pub(crate) mod env_vars;
mod error;
mod read;
mod registries;
mod settings;
mod source;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use emergent_api::http::rates::RateLimit;
use emergent_core::CoreConfig;
use emergent_firecracker_manager::Host;
use emergent_mcp_hosting::InstallVariable;
use emergent_provider::Isolation;
use emergent_provider_docker::IpNet;
use emergent_sealing::SecretKey;
use emergent_store::DatabaseUrl;
use secrecy::SecretString;

pub(crate) use connections::ConnectionLimits;
pub(crate) use error::ConfigError;
pub(crate) use settings::Settings;

/// The data directory of a server that runs as root.
const SYSTEM_DATA_DIR: &str = "/var/lib/emergent-workspaces";

/// Everything that the operator decides.
#[derive(Debug)]
pub(crate) struct Config {
    /// The directory of the server's files.
    pub(crate) data_dir: PathBuf,
    /// The database that keeps the rows.
    pub(crate) database: DatabaseUrl,
    /// How it is reached.
    pub(crate) http: HttpConfig,
    /// The log's filter and format.
    pub(crate) log: LogConfig,
    /// The settings of the domain.
    pub(crate) core: CoreConfig,
    /// The settings of the Docker provider.
    pub(crate) docker: DockerSettings,
    /// The settings of the firecracker provider.
    pub(crate) firecracker: FirecrackerSettings,
    /// The rate at which each project may call; `None` for no limit.
    pub(crate) rate_limit: Option<RateLimit>,
    /// How MCP servers are hosted.
    pub(crate) mcp: McpSettings,
    /// The guest binary, where it was named.
    pub(crate) guest_path: Option<PathBuf>,
    /// The time that calls under way get to end.
    pub(crate) shutdown_grace: Duration,
    /// The variables that were set and have no effect in this release; the server logs them.
    pub(crate) without_effect: Vec<&'static str>,
}

/// How the server is reached.
#[derive(Debug)]
pub(crate) struct HttpConfig {
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// Certificate and key.
    pub(crate) tls: Option<TlsFiles>,
    /// Hosts that a reverse proxy passes on.
    pub(crate) allowed_hosts: Vec<String>,
    /// The URL at which the servers that share the database reach this one.
    pub(crate) advertise_url: Option<String>,
    /// Certificates that it trusts of theirs, besides the system's own.
    pub(crate) peer_ca: Option<PathBuf>,
    /// The limits on connections.
    pub(crate) connections: ConnectionLimits,
    /// The memory that requests may hold, in bytes.
    pub(crate) memory_budget: usize,
}

/// Certificate and key.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    /// PEM file with the certificates.
    pub(crate) cert: PathBuf,
    /// PEM file with the key.
    pub(crate) key: PathBuf,
}

/// The log's filter and format.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// Directives such as `info,emergent_core=debug`.
    pub(crate) filter: String,
    /// As JSON, one object a line.
    pub(crate) json: bool,
}

/// How MCP servers are hosted.
#[derive(Debug)]
pub(crate) struct McpSettings {
    /// Encrypts their environments.
    pub(crate) secret_key: Option<SecretKey>,
    /// The longest body, in bytes.
    pub(crate) body_limit: usize,
    /// The most sessions that each server has.
    pub(crate) max_sessions: usize,
    /// The time for which a session may idle.
    pub(crate) idle_after: Duration,
    /// Variables of the installation of packages.
    pub(crate) install_environment: Vec<InstallVariable>,
}

/// The settings of the Docker provider.
#[derive(Debug)]
pub(crate) struct DockerSettings {
    /// The engine's address.
    pub(crate) host: Option<String>,
    /// The name that gVisor is registered by.
    pub(crate) runtime: String,
    /// The weakest isolation that is taken.
    pub(crate) require_isolation: Isolation,
    /// The network for workspaces that may reach the internet.
    pub(crate) network_name: Option<String>,
    /// The address ranges that workspaces may reach although they are the host's or private.
    pub(crate) network_allow: Vec<IpNet>,
    /// Registries of private networks that projects' images may come from.
    pub(crate) private_registries: Vec<String>,
}

/// The settings of the firecracker provider.
#[derive(Debug)]
pub(crate) enum FirecrackerSettings {
    /// There is none: neither a manager nor a directory is named.
    Absent,
    /// A manager elsewhere.
    Remote {
        /// The manager's address.
        url: String,
        /// The manager's API key.
        token: Option<SecretString>,
    },
    /// Machines of this process's own.
    Local(Box<Host>),
}

/// The data directory when none is named.
pub(crate) fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM_DATA_DIR);
    }
    let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = from_env("XDG_DATA_HOME").or_else(|| from_env("HOME").map(|home| home.join(".local/share")));
    base.map_or_else(|| PathBuf::from(SYSTEM_DATA_DIR), |base| base.join("emergent-workspaces"))
}

/// The server that the client commands speak to when neither they nor a data directory name one.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// The file with the address that the server of a data directory listens on, for the client commands.
pub(crate) fn server_url_file(data_dir: &Path) -> PathBuf {
    data_dir.join("server-url")
}

/// The file with the first token.
pub(crate) fn bootstrap_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("bootstrap-token")
}
