//! MicroVMs that really boot: QEMU, a Debian kernel, the workspace image, and the guest as the first process.

#![expect(clippy::print_stdout, reason = "a suite says what was left out, and how long machines took")]

mod boot;
mod firecracker;
mod ground;
mod loss;
mod saving;

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};

/// No case takes longer, emulated on a busy machine; one that does is hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = ground::why_missing();
    if let Some(reason) = &missing {
        println!("the microVM suite is skipped: {reason}");
    }
    println!("{}", firecracker::about());
    let cases = [boot::cases(), firecracker::cases(), saving::cases(), loss::cases()].into_iter().flatten();
    let cases = cases.map(|case| if missing.is_some() { case.with_ignored_flag(true) } else { case }).collect();
    libtest_mimic::run(&arguments, cases).exit_code()
}

/// A case, in a runtime of its own.
fn case<F>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    Trial::test(name, move || {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        executor
            .block_on(async { tokio::time::timeout(CASE_TIMEOUT, run()).await.context("the case hung")? })
            .map_err(|error| Failed::from(format!("{error:#}")))
    })
}
