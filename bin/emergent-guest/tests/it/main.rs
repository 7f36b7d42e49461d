//! The guest as its callers see it: the real program as a child process, over its real channels.
//!
//! It needs root, as in a workspace; without, each test says that it is skipped.

mod channel;
mod executions;
mod files;
mod git;
mod hostile;
mod output;
mod search;
mod support;
mod tools;
