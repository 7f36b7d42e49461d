//! The tool interface, through the whole stack: the same cases in containers, under gVisor and in microVMs.
//!
//! None of the workspaces has a network: calls are not carried by one.

mod bash;
mod files;
mod git;
mod pressure;
mod processes;
mod search;
mod subject;

use std::process::ExitCode;

use emergent_live_tests::{Runtime, case};

fn main() -> ExitCode {
    let suites = [bash::cases, files::cases, search::cases, git::cases, processes::cases, pressure::cases];
    let ended = case::run_on(&Runtime::ALL, &suites);
    subject::end_servers();
    ended
}
