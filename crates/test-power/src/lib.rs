//! A file system for tests that forgets at a power cut what was not synced. Takes root and `/dev/fuse`.
//!
//! A test runs real code on a mounted [`Disk`], and notes for each promise that it was given at which [`Disk::moment`]
//! that was. The disk remembers every write, name and sync in order. Afterwards [`Disk::cuts`] ends that history at
//! random moments; each [`Cut`] is a tree as it may be found then, which the test gives to the real code that starts
//! after a power cut.
//!
//! A program that maps files of the disk into its memory, as SQLite does, runs in a process of its own: whoever serves
//! the disk would wait for itself.
//!
//! The data that a power cut leaves; this is stricter than any file system that is in use:
//!
//! | | is there | may be there |
//! | --- | --- | --- |
//! | contents of a file | what was written before its last fsync or fdatasync | any of the later writes, in any combination, the last one torn; or only the length that they gave it, with zeroes |
//! | names in a directory | what was done before its last fsync | the later changes of each directory up to some point; a rename between two directories happens in both or in neither |
//!
//! Syncing a file does not keep its name, and syncing a directory keeps no file's contents. What is not modelled:
//! damage to what was synced, a disk that lies about its cache, and anything that is not on this file system.

mod contents;
mod history;
mod mount;
mod run;

pub use history::{Cut, Moment};
pub use mount::Disk;
pub use run::{Case, cuts, run};
