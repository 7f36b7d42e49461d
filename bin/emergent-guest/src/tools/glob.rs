//! The glob tool.
//!
//! Nothing is left out but what is inside `.git`: who names a pattern may mean an ignored or hidden file.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{GlobRequest, GlobResult},
};
use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;

use crate::{
    failure::{self, invalid},
    guest::Guest,
};

const LIMIT: usize = 1_000;

/// Finds files by name.
///
/// # Errors
/// `invalid_request` for a malformed pattern, or that of the file system for `path` itself.
pub async fn glob(guest: &Guest, request: GlobRequest) -> Result<GlobResult, GuestError> {
    let matcher = GlobBuilder::new(request.pattern.trim_start_matches("./"))
        .literal_separator(true)
        .build()
        .map_err(|error| invalid("pattern", format!("the pattern is malformed: {error}")))?
        .compile_matcher();
    if request.pattern.starts_with('/') {
        return Err(invalid("pattern", "the pattern is relative to `path`; put the directory there"));
    }
    let root = guest.resolve_or_workspace(request.path.as_ref());
    guest.as_agent(move || find(&root, &matcher)).await
}

fn find(root: &Path, matcher: &GlobMatcher) -> Result<GlobResult, GuestError> {
    // Also tells what is wrong with the root, which the walk would pass over.
    std::fs::read_dir(root).map_err(|error| failure::at(root, "look into", &error))?;
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .filter_entry(|entry| entry.file_name() != ".git" || entry.depth() == 0)
        .build();
    // The oldest of those kept is on top, to give way to a newer one.
    let mut newest: BinaryHeap<Reverse<(SystemTime, Reverse<PathBuf>)>> = BinaryHeap::with_capacity(LIMIT + 1);
    let mut truncated = false;
    // What cannot be read is not the agent's to find.
    for entry in walk.filter_map(Result::ok) {
        let is_directory = entry.file_type().is_none_or(|kind| kind.is_dir());
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if is_directory || !matcher.is_match(relative) {
            continue;
        }
        let modified = entry.metadata().ok().and_then(|metadata| metadata.modified().ok());
        newest.push(Reverse((modified.unwrap_or(SystemTime::UNIX_EPOCH), Reverse(entry.into_path()))));
        if newest.len() > LIMIT {
            newest.pop();
            truncated = true;
        }
    }
    let sorted = newest.into_sorted_vec();
    let files = sorted.into_iter().map(|Reverse((_, Reverse(path)))| GuestPath::from(path.as_path())).collect();
    Ok(GlobResult { files, truncated })
}
