//! The service against an engine of files and a guest of a few lines: states, races, crashes.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

mod audit;
mod background;
mod calls;
mod change;
mod crash;
mod create;
mod engine;
mod engine_away;
mod fallback;
mod gates;
mod guard;
mod guest;
mod holding;
mod idle;
mod images;
mod lifecycle;
mod orders;
mod output;
mod pool;
mod races;
mod reconcile;
mod sessions;
mod snapshots;
mod support;
mod usage;
