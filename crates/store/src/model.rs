//! The types of rows and of their columns.

pub mod destruction;
pub mod grants;
pub mod idle;
pub mod ids;
pub mod mcp_allow_list;
pub mod page;
pub(crate) mod row;
pub(crate) mod snapshot_row;
pub mod state;
pub(crate) mod words;
pub(crate) mod workspace_spec;
