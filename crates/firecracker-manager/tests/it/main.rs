//! The manager's states, on a monitor that is written here: what runs is a few lines, what is on disk is real.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

mod crash;
mod guest;
mod lives;
mod monitor;
mod rest;
mod service;
mod templates;
