//! The Docker provider against a real engine, without the server: through its trait, and from inside its containers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod isolation;
mod lifecycle;
mod sandbox;
mod volumes;

use std::process::ExitCode;

fn main() -> ExitCode {
    emergent_live_tests::case::run(&[lifecycle::cases, isolation::cases, volumes::cases, faults::cases])
}
