//! Hosted MCP servers in real containers: the fixture of `crates/mcp` as the server that is hosted. Every case runs on
//! runc and on gVisor.

mod clients;
mod conformance;
mod endpoint;
mod faults;
mod files;
mod gateway;
mod install;
mod lifecycle;
mod ready;
mod secrets;
mod shim;

use std::process::ExitCode;

fn main() -> ExitCode {
    emergent_live_tests::case::run(&[
        lifecycle::cases,
        ready::cases,
        install::cases,
        files::cases,
        endpoint::cases,
        gateway::cases,
        secrets::cases,
        shim::cases,
        conformance::cases,
        clients::cases,
        faults::cases,
    ])
}
