//! The guest as its callers see it: the real program as a child process, over its real channels.
//!
//! The tests need root, as in a workspace; without, each says that it is skipped.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod calls;
mod changes;
mod channel;
mod children;
mod configuration;
mod executions;
mod files;
mod full_disk;
mod git;
mod hostile;
mod output;
mod search;
mod support;
mod tools;
