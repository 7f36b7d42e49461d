//! Tokens, the principals that they prove, and the rights of these.
//!
//! A request is made by a [`Principal`], and its rights are the principal's alone. How a request proves its principal
//! is not known here: the API reads a [`TokenSecret`] out of a request, and [`Tokens`] answers with the
//! [`LivePrincipal`], which lasts until the token ends.
//!
//! The store keeps a SHA-256 of each secret. A token is found by that hash: what timing could tell of a lookup is about
//! the hash of 256 random bits, which leads nobody to a secret. Tokens that were found stay in memory, so that a request
//! need not ask the store.

pub mod live_principal;
pub mod principal;
pub mod secret;
pub mod tokens;

pub use live_principal::{LivePrincipal, PrincipalEnd, PrincipalKeeper};
pub use principal::Principal;
pub use secret::{InvalidSecret, TokenSecret};
pub use tokens::Tokens;
