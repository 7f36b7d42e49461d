//! `emergent firecracker …`.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::PathBuf,
};

use clap::{Args, Subcommand};
use emergent_microvm_net::{
    AddressPool,
    helper::{Helper, User},
};
use ipnet::Ipv4Net;

/// The set-up of this host for microVMs.
#[derive(Debug, Subcommand)]
pub(crate) enum FirecrackerCommand {
    /// Install Firecracker, make the directories, and report missing parts.
    Setup(SetupArgs),
    /// Run the small privileged process that makes the networks of microVMs.
    NetHelper(NetHelperArgs),
}

/// The options of the set-up of this host.
#[derive(Debug, Args)]
#[command(after_help = "May be repeated: what is there is left as it is. Exit codes: 0 all is there, 1 something is \
    missing or failed.\n\nA host without a network: download the release elsewhere, and name the file with --from.")]
pub(crate) struct SetupArgs {
    /// The directory of kernels, root file systems, sandboxes and snapshots.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/firecracker-workspaces")]
    pub(crate) base: PathBuf,
    /// The user that the manager runs as; the user gets the directories, and access to /dev/kvm.
    #[arg(long, value_name = "NAME", value_parser = user_name)]
    pub(crate) user: Option<String>,
    /// The directory where the programs are installed.
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    pub(crate) bin_dir: PathBuf,
    /// The release's archive, downloaded before.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Another release than this program's own choice, such as v1.16.1; needs --sha256 too.
    #[arg(long, value_name = "VERSION", value_parser = release, requires = "sha256")]
    pub(crate) release: Option<String>,
    /// The SHA-256 of the archive, as the release's page publishes it beside the file.
    #[arg(long, value_name = "HEX", value_parser = checksum)]
    pub(crate) sha256: Option<String>,
    /// Only report the steps that would be taken.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Answer with JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of the network helper.
#[derive(Debug, Args)]
#[command(after_help = "Start it as root. It gives up every privilege but CAP_NET_ADMIN before it serves anybody.\n\n\
    Example:\n  emergent firecracker net-helper --allow-uid 1000 --owner-uid 20000-20999 --user 64000")]
pub(crate) struct NetHelperArgs {
    /// The Unix socket to listen on.
    #[arg(long, value_name = "PATH", default_value = "/run/emergent/net.sock")]
    pub(crate) socket: PathBuf,
    /// A user that may send requests: the manager's. May be repeated.
    #[arg(long = "allow-uid", value_name = "UID", required = true)]
    pub(crate) allow_uid: Vec<u32>,
    /// Further users that may be given interfaces: those that the VMMs run as. May be repeated.
    #[arg(long = "owner-uid", value_name = "UID[-UID]", value_parser = users)]
    pub(crate) owner_uid: Vec<RangeInclusive<u32>>,
    /// The user and group to run as, in numbers; by default the user that starts it. The user must be able to open
    /// /dev/net/tun.
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) user: Option<User>,
    /// The private range that machines get their addresses from, four for each machine.
    #[arg(long, value_name = "RANGE", default_value_t = AddressPool::default())]
    pub(crate) pool: AddressPool,
    /// An address or a range that machines reach although it is private or this host's. May be repeated.
    #[arg(long, value_name = "RANGE", value_parser = range)]
    pub(crate) allow: Vec<Ipv4Net>,
    /// A name server for the machines; by default the host's own. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) resolver: Vec<Ipv4Addr>,
    /// The log filter: a level or directives, such as debug.
    #[arg(long, value_name = "DIRECTIVES", env = "EMERGENT_LOG", default_value = "info")]
    pub(crate) log: String,
    /// The socket, opened while the process still had the right to make it.
    #[arg(skip)]
    pub(crate) listening: Option<Helper>,
}

fn user_name(text: &str) -> Result<String, &'static str> {
    let well_formed = (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    well_formed.then(|| text.to_owned()).ok_or("a user is a name of this host's, or a number")
}

fn release(text: &str) -> Result<String, &'static str> {
    let well_formed = text.strip_prefix('v').is_some_and(|numbers| {
        numbers.split('.').count() == 3 && numbers.split('.').all(|number| number.parse::<u16>().is_ok())
    });
    well_formed.then(|| text.to_owned()).ok_or("a release is v and three numbers, such as v1.17.0")
}

fn checksum(text: &str) -> Result<String, &'static str> {
    let well_formed = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed.then(|| text.to_ascii_lowercase()).ok_or("a SHA-256 is 64 hexadecimal digits")
}

fn users(text: &str) -> Result<RangeInclusive<u32>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("users are UID or FIRST-LAST, in numbers"),
    }
}

fn range(text: &str) -> Result<Ipv4Net, &'static str> {
    let alone = || {
        text.parse::<IpAddr>().ok().and_then(|address| match address {
            IpAddr::V4(address) => Some(Ipv4Net::from(address)),
            IpAddr::V6(_) => None,
        })
    };
    let range = text.parse::<Ipv4Net>().ok().or_else(alone);
    range.map(|range| range.trunc()).ok_or("an address or a range, such as 10.1.2.3 or 10.1.2.0/24; IPv6 is closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_values_are_refused() {
        assert!(release("v1.17.0").is_ok() && checksum(&"0a".repeat(32)).is_ok() && users("1-2").is_ok());
        for text in ["1.17.0", "v1.17", "v1.17.0/../x", "latest"] {
            assert!(release(text).is_err(), "{text}");
        }
        assert!(checksum("0a").is_err() && users("2-1").is_err() && users("root").is_err());
        assert!(user_name("-x").is_err() && user_name("a:b").is_err() && user_name("agent").is_ok());
        assert!(range("10.1.2.3").is_ok() && range("::1").is_err());
    }
}
