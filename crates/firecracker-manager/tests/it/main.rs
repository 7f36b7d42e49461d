//! The manager's states, on a monitor of a few lines that this test implements, and a real file system.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

mod crash;
mod guest;
mod lives;
mod monitor;
mod rest;
mod service;
mod templates;
