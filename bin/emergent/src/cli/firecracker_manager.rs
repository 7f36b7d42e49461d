//! `emergent firecracker-manager`.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf};

use clap::Args;
use emergent_firecracker_manager::{
    DriverChoice, JailChoice, NetworkChoice, config::DEFAULT_TEMPLATE_SNAPSHOTS, step::step_names,
};
use emergent_types::{Fault, UnknownStep};

/// The options of a manager of microVMs. A flag overrides the environment.
#[derive(Debug, Args)]
#[command(after_help = "A stop leaves machines running; the next start adopts them. `emergent kernel import` and \
                        `emergent image build` make what machines boot.")]
pub(crate) struct FirecrackerManagerArgs {
    /// The address to listen on. An address that is not loopback needs an API key.
    #[arg(long, env = "FIRECRACKER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// The file with the key that callers send; by default the key is taken from FIRECRACKER_API_KEY.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// The directory of kernels, templates, sandboxes and snapshots.
    #[arg(long, env = "FIRECRACKER_DIR", default_value = "/var/lib/firecracker-workspaces", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The driver that runs machines: auto, firecracker, qemu or qemu-tcg.
    #[arg(long, env = "FIRECRACKER_DRIVER", default_value = "auto", value_name = "DRIVER")]
    pub(crate) driver: DriverChoice,
    /// Whether Firecracker runs in jails: auto, none, or the path of the jailer.
    #[arg(long, env = "FIRECRACKER_JAILER", default_value = "auto", value_name = "JAILER")]
    pub(crate) jailer: JailChoice,
    /// The networks of machines: auto, none, or the path of the network helper's socket.
    #[arg(long, env = "FIRECRACKER_NETWORK", default_value = "auto", value_name = "NETWORK")]
    pub(crate) network: NetworkChoice,
    /// The most machines that may run at once.
    #[arg(long, env = "FIRECRACKER_MAX_RUNNING", default_value_t = 64, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) max_running: u16,
    /// Memory of all machines together, in MiB; by default nine tenths of the host's, less 1 GiB.
    #[arg(long, env = "FIRECRACKER_MEMORY_MB", value_name = "MIB")]
    pub(crate) memory_mb: Option<NonZeroU64>,
    /// Seconds until a sandbox is removed that was made without a time to live; by default it is never removed.
    #[arg(long, env = "FIRECRACKER_DEFAULT_TTL_SECONDS", value_name = "SECONDS")]
    pub(crate) default_ttl_seconds: Option<NonZeroU64>,
    /// Seconds that a guest may take from its machine's start to its first answer.
    #[arg(long, env = "FIRECRACKER_BOOT_SECONDS", default_value_t = 120, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) boot_seconds: u16,
    /// The most snapshots of templates to keep, so that sandboxes begin with them instead of booting; 0 for none.
    #[arg(long, env = "FIRECRACKER_TEMPLATE_SNAPSHOTS", default_value_t = DEFAULT_TEMPLATE_SNAPSHOTS, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) template_snapshots: u16,
    /// The log filter: a level or directives, such as debug.
    #[arg(long, env = "EMERGENT_LOG", default_value = "info", value_name = "DIRECTIVES")]
    pub(crate) log: String,
    /// For tests of crashes: the step at which the manager kills itself.
    #[arg(long, env = "EMERGENT_FAULT", value_name = "STEP", hide = true, value_parser = fault)]
    pub(crate) fault: Option<Fault>,
}

fn fault(text: &str) -> Result<Fault, UnknownStep> {
    Fault::among(step_names(), text)
}
