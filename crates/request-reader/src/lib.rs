//! Reads JSON bodies and query strings into types. An error names the field at fault, tells the kinds of faults apart by
//! type, and speaks the client's words.
//!
//! serde's readers of formats report a fault as an English sentence. Here, types are read with an error type of this
//! crate instead, [`Misfit`], which keeps what serde tells it.

pub mod json;
pub mod misfit;
pub mod query;

pub use json::{JsonError, json};
pub use misfit::{FieldMisfit, Misfit};
pub use query::query;
