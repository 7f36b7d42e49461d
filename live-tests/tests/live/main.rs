//! The live suites. Every case runs on runc and on gVisor; where one is missing its cases are skipped, and say why.

mod durability;
mod faults;
mod images;
mod isolation;
mod lifecycle;
mod tools;

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
    let suites: [fn() -> Vec<Case>; 6] =
        [lifecycle::cases, tools::cases, durability::cases, faults::cases, isolation::cases, images::cases];
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
