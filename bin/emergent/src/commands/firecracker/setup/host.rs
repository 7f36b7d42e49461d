//! What the host has: KVM, devices, programs.

use std::path::Path;

use anyhow::Context as _;
use tokio::process::Command;

use super::finding::{Finding, State};
use crate::cli::SetupArgs;

const KVM: &str = "/dev/kvm";
/// Devices, the module that brings each, and what is not possible without it.
const DEVICES: [(&str, &str, Option<&str>); 2] = [
    ("/dev/net/tun", "tun", None),
    (
        "/dev/vhost-vsock",
        "vhost_vsock",
        Some("Firecracker does without; QEMU reaches guests over virtio-serial instead"),
    ),
];
/// Programs, the package that has each, and what is not possible without it.
const PROGRAMS: [(&str, &str, Option<&str>); 3] = [
    ("nft", "nftables", None),
    ("mke2fs", "e2fsprogs", None),
    ("iptables", "iptables", Some("only needed beside Docker, whose rules drop what is forwarded")),
];

/// Lets the manager's user open the device of the kernel's virtualization.
pub(super) async fn kvm(arguments: &SetupArgs) -> Finding {
    let name = "kvm";
    if !Path::new(KVM).exists() {
        let advice = "turn virtualization on in the firmware, load kvm_intel or kvm_amd, or, in a virtual machine, let \
                      it nest; without it the QEMU driver emulates, slowly";
        return Finding::missing(name, format!("there is no {KVM}"), advice);
    }
    let Some(user) = &arguments.user else {
        let detail = format!("{KVM} is there; name the manager's user with --user to let it in");
        return Finding::new(name, State::Present, detail);
    };
    if has_access(user).await {
        return Finding::new(name, State::Present, format!("{user} may open {KVM}"));
    }
    if arguments.dry_run {
        return Finding::new(name, State::Would, format!("let {user} open {KVM}"));
    }
    match run("setfacl", &["-m", &format!("u:{user}:rw"), KVM]).await {
        Ok(_) => Finding {
            advice: format!("until the next boot; for good: usermod --append --groups kvm {user}"),
            ..Finding::new(name, State::Done, format!("{user} may open {KVM}"))
        },
        Err(error) => {
            Finding::missing(name, format!("{user} may not open {KVM}: {error:#}"), "install acl, and run this as root")
        }
    }
}

/// Whether the access list names the user. Membership of a group is not looked at: to say it twice does no harm.
async fn has_access(user: &str) -> bool {
    let listed = run("getfacl", &["--absolute-names", "--omit-header", KVM]).await.unwrap_or_default();
    listed.lines().any(|line| line.starts_with(&format!("user:{user}:rw")))
}

/// Loads what can be loaded.
pub(super) async fn devices(arguments: &SetupArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (device, module, done_without) in DEVICES {
        findings.push(self::device(device, module, done_without, arguments.dry_run).await);
    }
    findings
}

async fn device(device: &str, module: &str, done_without: Option<&str>, dry_run: bool) -> Finding {
    let is_there = || Path::new(device).exists();
    if is_there() {
        return Finding::new(module, State::Present, device);
    }
    if dry_run {
        return Finding::new(module, State::Would, format!("load the module, for {device}"));
    }
    match (run("modprobe", &[module]).await, done_without) {
        (Ok(_), _) if is_there() => Finding::new(module, State::Done, format!("loaded, for {device}")),
        (_, Some(consequence)) => Finding::optional(module, format!("there is no {device}"), consequence),
        (_, None) => Finding::missing(module, format!("there is no {device}"), format!("as root: modprobe {module}")),
    }
}

/// Looks for the programs that the others need.
pub(super) fn programs() -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where administrators' programs are, which an ordinary user's PATH often leaves out.
    let more = ["/usr/sbin", "/sbin"].map(Into::into);
    let directories: Vec<_> = std::env::split_paths(&path).chain(more).collect();
    let find = |program: &str| directories.iter().map(|directory| directory.join(program)).find(|path| path.is_file());
    let look = |(program, package, done_without): (&str, &str, Option<&str>)| match (find(program), done_without) {
        (Some(path), _) => Finding::new(program, State::Present, path.display().to_string()),
        (None, Some(consequence)) => Finding::optional(program, "is not installed", consequence),
        (None, None) => Finding::missing(program, "is not installed", format!("install the package {package}")),
    };
    PROGRAMS.into_iter().map(look).collect()
}

async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(arguments).output().await.with_context(|| format!("{program} could not be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
