//! `emergent workspace set | attach | detach | sessions`.

use clap::{Args, ValueEnum};
use emergent_api::resources::workspaces::idle::IdleActionName;
use uuid::Uuid;

use super::pair;

/// The action on a workspace that nobody uses, and the time until it.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// The action when nobody uses the workspace; the next call resumes it.
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) idle: Option<Idle>,
    /// Minutes without calls and running processes after which the action is taken.
    #[arg(long, value_name = "MINUTES")]
    pub(crate) idle_after: Option<f64>,
}

/// An action on a workspace that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Idle {
    /// Nothing.
    None,
    /// Pause the workspace.
    Pause,
    /// Stop the workspace.
    Stop,
}

/// The changes to a workspace.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Its CPU, memory, disk and image stay what they were when it was made. For a larger copy of it:\n  \
        emergent snapshot create try --name larger\n  \
        emergent workspace create --snapshot larger --disk 20G"
)]
pub(crate) struct SetArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The workspace's name; empty takes it away.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label to set.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// A label to take away.
    #[arg(long, value_name = "KEY")]
    pub(crate) unlabel: Vec<String>,
    /// Days until it may be destroyed, from its creation; 0 for never.
    #[arg(long, value_name = "DAYS")]
    pub(crate) ttl_days: Option<f64>,
    /// Seconds until it may be destroyed, from now; 0 for at once.
    #[arg(long, value_name = "SECONDS", conflicts_with = "ttl_days")]
    pub(crate) expires_in: Option<u64>,
    /// The action on the workspace when nobody uses it.
    #[command(flatten)]
    pub(crate) idle: IdleArgs,
    /// Limits, which cannot be changed.
    #[command(flatten)]
    pub(crate) limits: FixedLimits,
}

/// Limits that a workspace keeps from its creation on. The command takes them only to refuse them with advice.
#[derive(Debug, Args)]
pub(crate) struct FixedLimits {
    #[arg(long, hide = true)]
    pub(crate) cpu: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) memory: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) disk: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) pids: Option<String>,
}

/// The workspace to hold, and its holder.
#[derive(Debug, Args)]
#[command(after_help = "Prints the session's id. Calls that carry it (--session, EMERGENT_SESSION) are refused once \
    another session holds the workspace; calls without it are an operator's.")]
pub(crate) struct AttachArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The holder's name, for people and other agents.
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: String,
    /// The session's id, so that the command can be repeated.
    #[arg(long, value_name = "UUID")]
    pub(crate) session_id: Option<Uuid>,
    /// End the session when no call carries it for so many seconds; never by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in: Option<u64>,
    /// Take the workspace over from whoever holds it.
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// The session to end.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The session's id, which `attach` printed.
    pub(crate) session_id: Uuid,
}

/// The workspace to list the sessions of.
#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
}

impl From<Idle> for IdleActionName {
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::None => Self::None,
            Idle::Pause => Self::Pause,
            Idle::Stop => Self::Stop,
        }
    }
}
