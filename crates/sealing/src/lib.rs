//! Secrets at rest: AES-256-GCM, each bound to the owner that it belongs to.
//!
//! A [`SecretKey`] seals a value for one owner, such as the environment of a hosted MCP server, into bytes that a row
//! can hold. The same key opens these bytes for the same owner alone, so that nobody gains by a copy of them in another
//! row.
//!
//! ```text
//!  sealed = version (1 byte) | nonce (12 bytes) | JSON of the value, encrypted | tag (16 bytes)
//! ```

mod key;

pub use key::{OpenError, SealError, SecretKey, UnusableKey};
