//! The performance table: our work beside that of the bare engine, in one run.

mod bare_engine;
pub mod mcp;
pub mod measure;
pub mod microvm;
pub mod row;
pub mod rows;
mod warm;

pub use measure::Samples;
pub use row::{Row, Target, print_table, write_json};
