//! The checks of the host's KVM, devices and programs.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context as _;
use tokio::process::Command;

use super::finding::{Finding, State};
use crate::cli::SetupArgs;

const KVM: &str = "/dev/kvm";
const TUN: &str = "/dev/net/tun";
/// The devices, the module of each, and for an optional one a note on doing without it.
const DEVICES: [(&str, &str, Option<&str>); 2] = [
    (TUN, "tun", None),
    (
        "/dev/vhost-vsock",
        "vhost_vsock",
        Some("Firecracker does without; QEMU reaches guests over virtio-serial instead"),
    ),
];
/// The programs, the package of each, and for an optional one a note on doing without it.
const PROGRAMS: [(&str, &str, Option<&str>); 3] = [
    ("nft", "nftables", None),
    ("mke2fs", "e2fsprogs", None),
    ("iptables", "iptables", Some("only needed beside Docker, whose rules drop what is forwarded")),
];

/// Lets the manager's user open the device of the kernel's virtualization.
pub(super) async fn kvm(arguments: &SetupArgs) -> Finding {
    if Path::new(KVM).exists() {
        return access("kvm", KVM, arguments).await;
    }
    let advice = "turn virtualization on in the firmware, load kvm_intel or kvm_amd, or, in a virtual machine, let it \
                  nest; without it the QEMU driver emulates, slowly";
    Finding::missing("kvm", format!("there is no {KVM}"), advice)
}

/// Lets the manager's user open an existing device.
async fn access(name: &str, device: &str, arguments: &SetupArgs) -> Finding {
    let Some(user) = &arguments.user else {
        let detail = format!("{device} is there; name the manager's user with --user to let it in");
        return Finding::new(name, State::Present, detail);
    };
    if has_access(user, device).await {
        return Finding::new(name, State::Present, format!("{user} may open {device}"));
    }
    if arguments.dry_run {
        return Finding::new(name, State::Would, format!("let {user} open {device}"));
    }
    match run("setfacl", &["-m", &format!("u:{user}:rw"), device]).await {
        Ok(_) => Finding {
            advice: "until the next boot; for good, say it in a rule of udev, or, for kvm, in the group of that name"
                .to_owned(),
            ..Finding::new(name, State::Done, format!("{user} may open {device}"))
        },
        Err(error) => {
            let advice = "install acl, and run this as root";
            Finding::missing(name, format!("{user} may not open {device}: {error:#}"), advice)
        }
    }
}

/// Whether everybody may open the device, or its access list names the user. Membership of a group is not checked: a
/// second grant does no harm.
async fn has_access(user: &str, device: &str) -> bool {
    let listed = run("getfacl", &["--absolute-names", "--omit-header", device]).await.unwrap_or_default();
    let is_open = std::fs::metadata(device).is_ok_and(|metadata| metadata.mode() & 0o006 == 0o006);
    is_open || listed.lines().any(|line| line.starts_with(&format!("user:{user}:rw")))
}

/// Loads the modules of missing devices.
pub(super) async fn devices(arguments: &SetupArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (device, module, done_without) in DEVICES {
        let found = self::device(device, module, done_without, arguments.dry_run).await;
        // Every VMM opens it itself, as the manager's user or one of its own.
        let is_for_vmms = device == TUN && matches!(found.state, State::Present | State::Done);
        findings.push(if is_for_vmms { access(module, device, arguments).await } else { found });
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

/// Checks for the programs that the other parts need.
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
