//! The tools that work inside the guest's process. (The bash tool is an execution: [`crate::executions`].)

pub mod edit;
mod excerpt;
pub mod git;
pub mod glob;
pub mod grep;
pub mod ignored;
pub mod pattern;
pub mod read;
pub mod walk;
pub mod write;
