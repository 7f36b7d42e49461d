//! The glob tool.
//!
//! Only the contents of `.git` are left out: a caller that names a pattern may mean an ignored or hidden file.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::{Path, PathBuf},
};

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{GlobRequest, GlobResult},
};

use super::{
    pattern::Pattern,
    walk::{Walk, Wanted},
};
use crate::{
    credentials::{self, Caller},
    failure::{self, invalid},
    guest::Guest,
};

const LIMIT: usize = 1_000;

/// A file, ordered by its time of change; of files with one time the first name counts as the newest.
type Dated = ((i64, u64), Reverse<PathBuf>);

/// Finds files by name.
///
/// # Errors
/// `invalid_request` for a malformed pattern, or the file system's error for `path` itself.
pub async fn glob(guest: &Guest, request: GlobRequest) -> Result<GlobResult, GuestError> {
    if request.pattern.starts_with('/') {
        return Err(invalid("pattern", "the pattern is relative to `path`; put the directory there"));
    }
    let pattern = Pattern::parse("pattern", &request.pattern)?;
    let root = guest.resolve_or_workspace(request.path.as_ref());
    credentials::walking(&guest.accounts.agent, move |caller| find(&root, &pattern, caller)).await
}

fn find(root: &Path, pattern: &Pattern, caller: &Caller) -> Result<GlobResult, GuestError> {
    let wanted = Wanted { pattern: &pattern.matcher, named: PathBuf::new(), rules: None, only_regular: false };
    let walk = Walk::begin(root, wanted, caller).map_err(|error| failure::at(root, "look into", &error))?;
    // The oldest of those kept is on top, to give way to a newer one.
    let mut newest: BinaryHeap<Reverse<Dated>> = BinaryHeap::with_capacity(LIMIT + 1);
    let mut truncated = false;
    for file in walk {
        newest.push(Reverse((file.modified().unwrap_or_default(), Reverse(file.path()))));
        if newest.len() > LIMIT {
            newest.pop();
            truncated = true;
        }
    }
    let sorted = newest.into_sorted_vec();
    let files = sorted.into_iter().map(|Reverse((_, Reverse(path)))| GuestPath::from(path.as_path())).collect();
    Ok(GlobResult { files, truncated })
}
