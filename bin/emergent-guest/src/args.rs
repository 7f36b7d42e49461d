//! The command line. Parsed by hand: the program is uploaded to sandboxes, so every kilobyte counts.

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use crate::machine::settings::MachineSettings;

/// The usage message of the command line.
pub const USAGE: &str = "usage: emergent-guest serve [--state-dir DIR] [--workspace DIR] [--socket PATH] [--stdio] \
    [--nproc N] [--output-budget BYTES] \
    [--nameserver ADDRESS]... [--own DIR]... [--volume DIR]... [--workspace-id ID] | connect [--socket PATH] | \
    copy-trees FROM TO [FROM TO]... | \
    init | --version";

/// A command with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Runs the workspace's daemon.
    Serve(Box<Settings>),
    /// Joins standard input and output to the daemon's socket.
    Connect {
        /// The daemon's socket.
        socket: PathBuf,
    },
    /// Copies all files of directories into empty ones: pairs of a directory to copy and an empty one.
    CopyTrees(Vec<(PathBuf, PathBuf)>),
    /// Runs as the first process of a virtual machine.
    Init,
    /// Prints the release.
    Version,
}

/// The settings of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory of the socket, the journal and the output of executions.
    pub state_dir: PathBuf,
    /// The directory that relative paths start from.
    pub workspace: PathBuf,
    /// The Unix socket to listen on.
    pub socket: PathBuf,
    /// Whether to serve a channel on standard input and output too.
    pub stdio: bool,
    /// The most processes of the agent's user (`RLIMIT_NPROC`).
    pub nproc: Option<u64>,
    /// The most bytes of output that are kept.
    pub output_budget: u64,
    /// Name servers for networks where Docker's own cannot be reached.
    pub name_servers: Vec<IpAddr>,
    /// Directories on file systems of their own that the agent is made the owner of, if root owns them.
    pub owned: Vec<PathBuf>,
    /// Directories on file systems of their own that keep their owners.
    pub volumes: Vec<PathBuf>,
    /// The workspace's id; executions of another workspace in the same state directory are forgotten.
    pub workspace_id: Option<String>,
    /// The host's settings for the machine, if the daemon is the first process of one.
    pub machine: Option<MachineSettings>,
}

/// The reason why the command line is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// No command, or one that does not exist.
    #[error("a command is needed\n{USAGE}")]
    NoCommand,
    /// A flag that does not exist.
    #[error("{0:?} is not a flag of this command\n{USAGE}")]
    UnknownFlag(OsString),
    /// A flag without its value.
    #[error("{0} needs a value\n{USAGE}")]
    NoValue(&'static str),
    /// A value that is not a number.
    #[error("{0} needs a whole number, not {1:?}")]
    NotANumber(&'static str, OsString),
    /// A value that is not text.
    #[error("{0} needs text, not {1:?}")]
    NotText(&'static str, OsString),
    /// A value that is not an address.
    #[error("{0} needs an IP address, not {1:?}")]
    NotAnAddress(&'static str, OsString),
}

const DEFAULT_OUTPUT_BUDGET: u64 = 2 << 30;

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`ArgsError`] names the wrong argument.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut arguments = arguments;
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("serve") => serve(arguments).map(|settings| Command::Serve(Box::new(settings))),
        Some("connect") => connect(arguments),
        Some("copy-trees") => copy_trees(arguments),
        // The kernel hands over words of its command line that it does not know.
        Some("init") => Ok(Command::Init),
        Some("--version" | "-V") => Ok(Command::Version),
        _ => Err(ArgsError::NoCommand),
    }
}

fn serve(mut arguments: impl Iterator<Item = OsString>) -> Result<Settings, ArgsError> {
    let mut settings = Settings::default();
    let mut socket = None;
    while let Some(flag) = arguments.next() {
        match flag.to_str() {
            Some("--state-dir") => settings.state_dir = value("--state-dir", &mut arguments)?.into(),
            Some("--workspace") => settings.workspace = value("--workspace", &mut arguments)?.into(),
            Some("--socket") => socket = Some(value("--socket", &mut arguments)?.into()),
            Some("--stdio") => settings.stdio = true,
            Some("--nproc") => settings.nproc = Some(number("--nproc", &mut arguments)?),
            Some("--output-budget") => settings.output_budget = number("--output-budget", &mut arguments)?,
            Some("--nameserver") => settings.name_servers.push(address("--nameserver", &mut arguments)?),
            Some("--own") => settings.owned.push(value("--own", &mut arguments)?.into()),
            Some("--volume") => settings.volumes.push(value("--volume", &mut arguments)?.into()),
            Some("--workspace-id") => settings.workspace_id = Some(text("--workspace-id", &mut arguments)?),
            _ => return Err(ArgsError::UnknownFlag(flag)),
        }
    }
    settings.socket = socket.unwrap_or_else(|| settings.state_dir.join("guest.sock"));
    Ok(settings)
}

fn connect(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut socket = PathBuf::from(emergent_guest_proto::SOCKET_PATH);
    while let Some(flag) = arguments.next() {
        match flag.to_str() {
            Some("--socket") => socket = value("--socket", &mut arguments)?.into(),
            _ => return Err(ArgsError::UnknownFlag(flag)),
        }
    }
    Ok(Command::Connect { socket })
}

fn copy_trees(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut pairs = Vec::new();
    loop {
        let from = arguments.next();
        if from.is_none() && !pairs.is_empty() {
            return Ok(Command::CopyTrees(pairs));
        }
        let from = from.ok_or(ArgsError::NoValue("copy-trees"))?;
        pairs.push((from.into(), value("copy-trees", &mut arguments)?.into()));
    }
}

fn value(flag: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<OsString, ArgsError> {
    arguments.next().ok_or(ArgsError::NoValue(flag))
}

fn text(flag: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<String, ArgsError> {
    value(flag, arguments)?.into_string().map_err(|text| ArgsError::NotText(flag, text))
}

fn address(flag: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<IpAddr, ArgsError> {
    let text = value(flag, arguments)?;
    text.to_str().and_then(|text| text.parse().ok()).ok_or(ArgsError::NotAnAddress(flag, text))
}

fn number(flag: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<u64, ArgsError> {
    let text = value(flag, arguments)?;
    text.to_str().and_then(|text| text.parse().ok()).ok_or(ArgsError::NotANumber(flag, text))
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: emergent_guest_proto::STATE_DIR.into(),
            workspace: emergent_guest_proto::WORKSPACE_DIR.into(),
            socket: emergent_guest_proto::SOCKET_PATH.into(),
            stdio: false,
            nproc: None,
            output_budget: DEFAULT_OUTPUT_BUDGET,
            name_servers: Vec::new(),
            owned: Vec::new(),
            volumes: Vec::new(),
            workspace_id: None,
            machine: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_socket_follows_the_state_directory_unless_it_is_named() {
        let Ok(Command::Serve(settings)) = parsed("serve --state-dir /s --nproc 9 --stdio") else { panic!() };
        assert_eq!(settings.socket, PathBuf::from("/s/guest.sock"));
        assert_eq!((settings.nproc, settings.stdio), (Some(9), true));
        let Ok(Command::Serve(settings)) = parsed("serve --socket /x --state-dir /s") else { panic!() };
        assert_eq!(settings.socket, PathBuf::from("/x"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(parsed("serve --nope"), Err(ArgsError::UnknownFlag("--nope".into())));
        assert_eq!(parsed("serve --nproc"), Err(ArgsError::NoValue("--nproc")));
        assert_eq!(parsed("serve --nproc x"), Err(ArgsError::NotANumber("--nproc", "x".into())));
        for odd in ["copy-trees", "copy-trees /a", "copy-trees /a /b /c"] {
            assert_eq!(parsed(odd), Err(ArgsError::NoValue("copy-trees")));
        }
        assert_eq!(parsed("serve --nameserver x"), Err(ArgsError::NotAnAddress("--nameserver", "x".into())));
        assert_eq!(parsed(""), Err(ArgsError::NoCommand));
    }
}
