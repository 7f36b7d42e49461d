//! The manager of microVMs as its users have it: the program, its REST API, and machines that really boot.
//!
//! `LIVE_MICROVM` names a directory with the files that machines boot, as `make live` prepares it. Without it, or
//! without QEMU, the cases are listed as ignored, with the reason.

mod client;
mod crashes;
mod disks;
mod lifecycle;
mod limits;
mod network;
mod pool;
mod provider;
mod rootfs;

use std::process::ExitCode;

use emergent_live_tests::{Runtime, case};

fn main() -> ExitCode {
    case::run_on(
        &[Runtime::Qemu],
        &[
            lifecycle::cases,
            crashes::cases,
            disks::cases,
            limits::cases,
            client::cases,
            provider::cases,
            pool::cases,
            rootfs::cases,
            network::cases,
        ],
    )
}
