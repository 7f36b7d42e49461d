//! `emergent firecracker setup`: prepares a host for microVMs; makes the missing parts.

mod finding;
mod host;
mod layout;
mod release;

use crate::{cli::SetupArgs, exit::ExitStatus, print};

use finding::{Finding, State};

/// Runs the set-up; reports the actions taken and the missing parts.
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
