//! The live suites. Every case runs on runc and on gVisor; where one is missing its cases are skipped, and say why.

mod audit;
mod bounds;
mod command_line;
mod copies;
mod durability;
mod faults;
mod guides;
mod idle;
mod images;
mod isolation;
mod lifecycle;
mod memory;
mod selection;
mod sessions;
mod snapshot_faults;
mod snapshots;
mod warm;

use std::process::ExitCode;

fn main() -> ExitCode {
    emergent_live_tests::case::run(&[
        lifecycle::cases,
        sessions::cases,
        idle::cases,
        durability::cases,
        faults::cases,
        snapshots::cases,
        snapshot_faults::cases,
        isolation::cases,
        guides::cases,
        command_line::cases,
        images::cases,
        selection::cases,
        warm::cases,
        audit::cases,
        bounds::cases,
        memory::cases,
        copies::cases,
    ])
}
