//! The tools that work in process. (The bash tool is an execution: [`crate::executions`].)

pub mod edit;
pub mod git;
pub mod glob;
pub mod grep;
pub mod open;
pub mod read;
pub mod write;
