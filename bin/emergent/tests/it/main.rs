//! The whole program: its output, its exit, and a server that needs no engine.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails is a failed test")]

mod firecracker;
mod harness;
mod help;
mod server;
mod settings;
mod tls;
