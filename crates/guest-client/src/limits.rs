//! How much each kind of answer may have. Whoever is root in a workspace can answer anything in the guest's place.
//!
//! Bytes are what a guest of ours answers at most, and a margin. Values are counted as [`Limits`] says: an entry of a
//! list is as many as its fields, twice.

use emergent_budget::Limits;

/// An answer with a few fields.
pub(crate) const FEW: Limits = Limits::json(256 * 1024, 1_000);
/// An error.
pub(crate) const ERROR: Limits = FEW;
/// The text of a file, of 16 MiB at most, or a directory's names.
pub(crate) const READ: Limits = Limits::json(33 << 20, 100);
/// A thousand paths.
pub(crate) const GLOB: Limits = Limits::json(24 << 20, 2_000);
/// Ten thousand matching lines.
pub(crate) const GREP: Limits = Limits::json(33 << 20, 200_000);
/// A diff, ten thousand changed files, or a thousand commits.
pub(crate) const GIT: Limits = Limits::json(33 << 20, 200_000);
/// The limits for the output of a command, which is cut.
pub(crate) const BASH: Limits = Limits::json(2 << 20, 100);
/// Two thousand executions.
pub(crate) const EXECUTIONS: Limits = Limits::json(16 << 20, 100_000);
/// Ten thousand files.
pub(crate) const FILES: Limits = Limits::json(33 << 20, 300_000);
/// Children with their notes.
pub(crate) const CHILDREN: Limits = Limits::json(16 << 20, 20_000);

/// The bytes that one stream from a guest may have in memory while nobody reads it: its window, and what the connection
/// to the client takes ahead.
pub(crate) const STREAM: usize = 320 * 1024;
