//! The program `emergent`: the server, and its command line.

mod cli;
mod client;
mod commands;
mod config;
mod exit;
mod guest_binary;
mod print;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, exit::ExitStatus};

fn main() -> ExitCode {
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(error).into(),
    };
    if let Err(status) = commands::prepare(&mut cli) {
        return status.into();
    }
    // One choice of cryptography for the whole process, made before anything needs it. Installing it twice is the
    // only way to fail.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::error(&format!("the runtime could not be started: {error}"));
            return ExitStatus::Failure.into();
        }
    };
    let status = runtime.block_on(commands::run(cli));
    // Reads of standard input cannot be cancelled and must not hold the exit up.
    runtime.shutdown_background();
    status.into()
}
