//! The performance table: what we do beside what the bare engine does, in one run.

pub mod mcp;
pub mod measure;
pub mod microvm;
pub mod row;
pub mod rows;
mod warm;

pub use measure::Samples;
pub use row::{Row, Target, print_table, write_json};
