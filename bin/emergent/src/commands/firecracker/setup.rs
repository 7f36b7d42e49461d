//! `emergent firecracker setup`: what a host needs for microVMs, made where it is missing.

mod finding;
mod host;
mod layout;
mod release;

use crate::{cli::SetupArgs, exit::ExitStatus, print};

use finding::{Finding, State};

/// Does it, and tells what was done and what is missing.
pub(super) async fn run(arguments: &SetupArgs) -> ExitStatus {
    let mut findings = vec![release::install(arguments).await];
    findings.extend(layout::make(arguments).await);
    findings.push(host::kvm(arguments).await);
    findings.extend(host::devices(arguments).await);
    findings.extend(host::programs());
    if arguments.json {
        print::json(&findings);
    } else {
        findings.iter().for_each(Finding::show);
    }
    let is_complete = findings.iter().all(|finding| finding.state != State::Missing);
    if is_complete { ExitStatus::Success } else { ExitStatus::Failure }
}
