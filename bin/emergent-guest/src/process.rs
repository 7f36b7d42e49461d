//! Processes: making them, hearing of their end, ending them.

pub mod launch;
pub mod mark;
pub mod preload;
pub mod reaper;
pub mod signal;
pub mod spawn;
pub mod tree;
