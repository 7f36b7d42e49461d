//! The Docker provider against a real engine, without the server: through its trait, and from inside its containers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod isolation;
mod lifecycle;
mod sandbox;

use std::process::ExitCode;

use emergent_live_tests::{Case, Engine, Runtime};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = Runtime::ALL.into_iter().flat_map(trials_on).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials_on(runtime: Runtime) -> Vec<Trial> {
    let missing = why_missing(runtime);
    let suites: [fn() -> Vec<Case>; 3] = [lifecycle::cases, isolation::cases, faults::cases];
    suites.into_iter().flat_map(|suite| suite()).map(|case| case.on(runtime, missing.as_deref())).collect()
}

fn why_missing(runtime: Runtime) -> Option<String> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    match executor.block_on(async { Engine::connect()?.has_runtime(runtime.name()).await }) {
        Ok(true) => None,
        Ok(false) => Some(format!("Docker has no runtime {}", runtime.name())),
        // Not a reason to skip: the cases fail and say what is wrong.
        Err(_) => None,
    }
}
