//! A short soak, so that every change meets the faults: as `make soak`, for a minute, and then with every kind of leak
//! planted, each of which must be named.

use std::process::{Command, ExitCode};

use emergent_live_tests::soak::lab;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let missing = lab::check().err();
    let kind = missing.as_ref().map_or_else(String::new, |why| format!("skipped: {why:#}"));
    let trial = Trial::test("nothing_is_found_but_what_is_planted", short_soak)
        .with_ignored_flag(missing.is_some())
        .with_kind(kind);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn short_soak() -> Result<(), Failed> {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    let status = soak.arg("--prove").env("SOAK_SEED", "1").env("SOAK_MINUTES", "1").env_remove("SOAK_LEAK").status()?;
    if status.success() { Ok(()) } else { Err(Failed::from(format!("the soak ended with {status}; see above"))) }
}
