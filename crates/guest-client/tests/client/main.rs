//! The client against a scripted HTTP/2 peer: what it repeats, what it does not, and what it takes from a hostile one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod changes;
mod executions;
mod hostile;
mod output;
mod peer;
mod transfers;
