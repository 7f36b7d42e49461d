//! Processes: their start, their end, and their termination.

pub mod group_tags;
pub mod launch;
pub mod preload;
pub mod reaper;
pub mod signal;
pub mod spawn;
pub mod tree;
