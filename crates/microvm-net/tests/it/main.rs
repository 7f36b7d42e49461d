//! Real packets through real rules: machines, a host and an internet, each a network namespace that the test makes.
//!
//! A loop does the work of a VMM: it carries frames between the TAP on the host and one in the machine's
//! namespace, so both ends have a whole kernel. The helper is a process of its own, without privileges but one: this
//! program, started again.

#![expect(clippy::print_stdout, reason = "a test tells why it is skipped, and what it measured")]

mod crash;
mod docker;
mod filter;
mod guest;
mod helper;
mod pool;
mod rate;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Case = (&'static str, fn() -> anyhow::Result<()>);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == world::HELPER) {
        return world::run_helper(&arguments[2..]);
    }
    let missing = emergent_test_netns::why_missing(&[("nft", "--version"), ("iptables", "--version")]);
    if let Some(reason) = &missing {
        println!("the cases in network namespaces are skipped: {reason}");
    }
    let cases = [filter::CASES, pool::CASES, crash::CASES, helper::CASES, rate::CASES, docker::CASES];
    let trials = cases.concat().into_iter().map(|(name, run)| {
        let run = move || run().map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, run).with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
