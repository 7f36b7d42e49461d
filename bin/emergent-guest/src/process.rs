//! Processes: their start, their end, and their termination.

pub mod launch;
pub mod mark;
pub mod preload;
pub mod reaper;
pub mod signal;
pub mod spawn;
pub mod tree;
