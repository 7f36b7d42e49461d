//! `make soak`: agents at random on real servers while everything beneath is broken on purpose.
//!
//! `SOAK_SEED` (1,2), `SOAK_MINUTES` (10) and `SOAK_LEAK` (a kind of leak that the harness plants, so that the run must
//! fail) say what to do; `--prove` plants every kind at the end and sees each named.

use std::process::ExitCode;

use emergent_live_tests::soak::{lab, report::say, run, settings::Settings};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    carry_out(&arguments).unwrap_or_else(|error| {
        say(&format!("the soak could not be carried out: {error:#}"));
        ExitCode::from(2)
    })
}

fn carry_out(arguments: &[String]) -> anyhow::Result<ExitCode> {
    // The stages inside are started by the one outside.
    if let [stage, rest @ ..] = arguments
        && stage == "init"
    {
        return lab::inside::init(rest);
    }
    let settings = Settings::read(arguments)?;
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.first().is_some_and(|stage| stage == "run") {
        let ended = executor.block_on(run::run(&settings));
        // Whoever still waits, such as for the standard input, is not waited for.
        executor.shutdown_background();
        return ended;
    }
    executor.block_on(lab::runs(&settings, arguments))
}
