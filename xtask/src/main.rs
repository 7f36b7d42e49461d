//! The project's own checks. `cargo xtask prepush` runs all of them and reports every failure, not only the first.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a developer's tool talks to the terminal")]

mod circles;
mod tidy;

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

const USAGE: &str = "usage: cargo xtask prepush | tidy | circles";

fn main() -> ExitCode {
    let task = env::args().nth(1).unwrap_or_default();
    let outcome = match task.as_str() {
        "prepush" => prepush(),
        "tidy" => tidy::check(),
        "circles" => tidy::print_circles(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepush() -> anyhow::Result<()> {
    let checks: [(&str, &dyn Fn() -> anyhow::Result<()>); 7] = [
        ("tidy", &tidy::check),
        ("fmt", &|| cargo(&["fmt", "--all", "--check"], &[])),
        ("clippy", &|| cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])),
        // The suites against real engines are no part of `cargo test`, nor then of all its targets.
        ("clippy (live)", &|| {
            cargo(&["clippy", "--workspace", "--test", "*", "--locked", "--", "-D", "warnings"], &[])
        }),
        ("deny", &deny),
        ("rustdoc", &|| cargo(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])),
        ("test", &|| cargo(&["test", "--workspace", "--locked"], &[])),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        eprintln!("=== {name}");
        if let Err(error) = check() {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn deny() -> anyhow::Result<()> {
    if !Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        cargo(&["install", "--locked", "--quiet", "--debug", "cargo-deny"], &[]).context("installing cargo-deny")?;
    }
    cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"], &[])
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .context("starting cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo {} failed", arguments.first().unwrap_or(&"")) }
}
