//! `emergent project …`.

use clap::{Args, Subcommand};
use emergent_api::http::size::ByteSize;

/// The commands for projects. A project is named by its id or its name.
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// List the projects that you see, with their quotas.
    Ls,
    /// Show the quota of a project and its use, or set the quota.
    Quota(QuotaArgs),
}

/// A project's quota.
#[derive(Debug, Args)]
#[command(
    after_help = "Without options it shows the quota and its use. An option changes one figure and leaves the others; \
    `none` takes a limit away. Quotas are set with an administrator's token.\n\n\
    Examples:\n  emergent project quota research\n  emergent project quota research --max-active 5 --max-memory 16G"
)]
pub(crate) struct QuotaArgs {
    /// The project's id or name.
    pub(crate) project: String,
    /// Workspaces that are creating, ready or paused.
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    pub(crate) max_active: Option<Limit<u32>>,
    /// Workspaces that are not destroyed, stopped ones too.
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    pub(crate) max_total: Option<Limit<u32>>,
    /// CPU cores of the active workspaces and the hosted MCP servers together.
    #[arg(long, value_name = "CORES", value_parser = limit::<f64>)]
    pub(crate) max_cpu: Option<Limit<f64>>,
    /// Memory of the active workspaces and the hosted MCP servers together, such as 16G.
    #[arg(long, value_name = "SIZE", value_parser = limit::<ByteSize>)]
    pub(crate) max_memory: Option<Limit<ByteSize>>,
    /// Processes and threads of the active workspaces and the hosted MCP servers together.
    #[arg(long, value_name = "COUNT", value_parser = limit::<u64>)]
    pub(crate) max_pids: Option<Limit<u64>>,
    /// Disk of workspaces, hosted MCP servers and snapshots together, such as 100G.
    #[arg(long, value_name = "SIZE", value_parser = limit::<ByteSize>)]
    pub(crate) max_disk: Option<Limit<ByteSize>>,
    /// Hosted MCP servers.
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    pub(crate) max_mcp_servers: Option<Limit<u32>>,
    /// Snapshots; a fork needs one for a moment.
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    pub(crate) max_snapshots: Option<Limit<u32>>,
}

/// A limit in a quota.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit<T> {
    /// No more than this.
    Most(T),
    /// No limit.
    None,
}

impl<T> Limit<T> {
    /// Returns the figure, if there is one.
    pub(crate) fn figure(self) -> Option<T> {
        match self {
            Self::Most(figure) => Some(figure),
            Self::None => None,
        }
    }
}

fn limit<T: std::str::FromStr>(text: &str) -> Result<Limit<T>, String>
where
    T::Err: std::fmt::Display,
{
    if text == "none" {
        return Ok(Limit::None);
    }
    text.parse().map(Limit::Most).map_err(|error: T::Err| format!("{error}; give a figure, or none"))
}
