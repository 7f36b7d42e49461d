//! MicroVMs that really boot: QEMU, a Debian kernel, the workspace image, and the guest as the first process.

#![expect(clippy::print_stdout, reason = "a suite says what was left out, and how long machines took")]

mod boot;
mod firecracker;
mod harness;
mod loss;
mod saving;
mod vsock;

use std::process::ExitCode;

use emergent_live_tests::{Runtime, case};

fn main() -> ExitCode {
    case::run_on(&[Runtime::Qemu], &[boot::cases, firecracker::cases, saving::cases, loss::cases, vsock::cases])
}
