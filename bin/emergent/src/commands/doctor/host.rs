//! The checks of the host itself: packet filter, files, address, KVM.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use emergent_api::http::size::ByteSize;
use emergent_packet_filter::{Nft, ProgramError};
use emergent_types::error_chain;

use super::check::Check;
use crate::{config::Config, guest_binary};

const NFT_DEADLINE: Duration = Duration::from_secs(5);
/// Rules like those that keep workspaces from the host; they are only checked, never set.
const SAMPLE_RULES: &str = "table inet emergent_doctor {\n chain forward {\n type filter hook forward priority -5\n \
    ip daddr 169.254.0.0/16 drop\n }\n}\n";
const LITTLE: u64 = 10 << 30;
const TOO_LITTLE: u64 = 1 << 30;

/// Checks whether rules can be set that keep workspaces from the host and private ranges.
pub(super) async fn packet_filter(config: &Config) -> Check {
    let name = "packet filter";
    let consequence = "workspaces with network could reach this host, private ranges and the metadata address";
    if config.docker.host.as_deref().is_some_and(|host| !host.starts_with("unix://")) {
        return Check::warn(name, "Docker runs on another host, whose rules can't be set from here", "filter there");
    }
    let (reason, advice) = match Nft::within(NFT_DEADLINE).check(SAMPLE_RULES).await {
        Ok(()) => return Check::ok(name, "nft takes rules"),
        Err(error @ ProgramError::Silent { .. }) => (error_chain(&error), "see what holds it up"),
        Err(error @ (ProgramError::NotRun { .. } | ProgramError::Refused { .. })) => {
            (error_chain(&error), "install nftables and run the server as root, on a kernel with nf_tables")
        }
    };
    // The rest of nft's message repeats the rules.
    let reason = reason.lines().next().unwrap_or_default();
    Check::warn(name, &format!("{consequence}: {reason}"), advice)
}

/// Checks whether the guest binary exists and runs in any image.
pub(super) fn guest_binary(config: &Config) -> Check {
    let name = "guest binary";
    let build = "build it with `make build`, or set EMERGENT_GUEST_PATH";
    let path = match guest_binary::find(config.guest_path.as_deref()) {
        Ok(path) => path,
        Err(error) => return Check::fail(name, &error.to_string(), ""),
    };
    let shown = path.display();
    match std::fs::read(&path) {
        Ok(elf) if guest_binary::is_static(&elf) => Check::ok(name, &format!("{shown}, static")),
        Ok(_) => Check::fail(
            name,
            &format!("{shown} is not a static 64-bit executable, and would not run in any image"),
            build,
        ),
        Err(error) => Check::fail(name, &format!("{shown} cannot be read: {error}"), build),
    }
}

/// Checks whether the server can listen on the address.
pub(super) fn listen_address(config: &Config) -> Check {
    let name = "address";
    let address = config.http.listen;
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, &format!("{address} is free")),
        Err(error) => {
            let detail = format!("{address} can't be listened on: {error}");
            Check::fail(name, &detail, "set EMERGENT_LISTEN to another address")
        }
    }
}

/// Checks whether the server can write its files.
pub(super) fn data_directory(config: &Config) -> Check {
    let name = "data directory";
    let shown = config.data_dir.display();
    let existing = nearest_existing(&config.data_dir);
    let writable = rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    match writable {
        Ok(()) if existing == config.data_dir => Check::ok(name, &format!("{shown} can be written")),
        Ok(()) => Check::ok(name, &format!("{shown} can be made")),
        Err(error) => {
            let advice = "set EMERGENT_DATA_DIR to a directory that this user can write";
            Check::fail(name, &format!("{shown} can't be written: {error}"), advice)
        }
    }
}

/// Checks whether the disk has space for the database, and for workspaces if Docker keeps them on the same disk.
pub(super) fn disk_space(config: &Config) -> Check {
    let name = "disk space";
    let local_docker = Path::new("/var/lib/docker");
    let place = if local_docker.is_dir() { local_docker.to_owned() } else { nearest_existing(&config.data_dir) };
    let shown = place.display();
    match rustix::fs::statvfs(&place) {
        Ok(figures) => {
            let free = figures.f_bavail.saturating_mul(figures.f_frsize);
            let detail = format!("{} free on {shown}", ByteSize(free));
            match free {
                ..TOO_LITTLE => {
                    Check::fail(name, &detail, "make room: a workspace needs at least its image and its files")
                }
                TOO_LITTLE..LITTLE => Check::warn(name, &detail, "make room: a workspace may use 10G by default"),
                _ => Check::ok(name, &detail),
            }
        }
        Err(error) => Check::warn(name, &format!("{shown} can't be looked at: {error}"), "see that it is mounted"),
    }
}

/// Checks whether there is KVM. Opening the device does not show that it can run a guest, so the verdict says no more.
pub(super) fn kvm() -> Check {
    let name = "kvm";
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(_) => Check::ok(
            name,
            "/dev/kvm opens; whether it can run a guest shows only by booting one (not needed by gVisor)",
        ),
        Err(error) => {
            Check::ok(name, &format!("/dev/kvm can't be opened ({error}): no microVMs here (not needed by gVisor)"))
        }
    }
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}
