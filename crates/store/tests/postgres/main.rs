//! The suite once more, on PostgreSQL. A program of its own, so that no test can be left out: `support` asks the
//! program for its name.

mod connection;
#[path = "../it/main.rs"]
mod it;

use it::support;
