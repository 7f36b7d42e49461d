//! The write tool.

use std::sync::Arc;

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{WriteRequest, WriteResult},
};

use crate::{
    files::{
        hash::hash,
        replace::{self, Expected},
        target::Target,
    },
    guest::Guest,
};

/// Writes a whole file, atomically.
///
/// # Errors
/// The file system's error, or `content_changed`; the old contents are kept then.
pub async fn write(guest: &Guest, request: WriteRequest) -> Result<WriteResult, GuestError> {
    let path = guest.resolve(&request.file_path);
    let WriteRequest { content, expected_sha256, .. } = request;
    let find = {
        let path = path.clone();
        move || {
            let target = Arc::new(Target::prepare(&path)?);
            Ok((vec![target.key_of_contents()?], target))
        }
    };
    let write = move |target: Arc<Target>| {
        let expected = expected_sha256.as_ref().map_or(Expected::Anything, Expected::Hash);
        let created = replace::replace(&target, content.as_bytes(), expected)?;
        let sha256 = Some(hash(content.as_bytes()));
        let bytes_written = content.len() as u64;
        Ok(WriteResult { file_path: GuestPath::from(path.as_path()), bytes_written, created, sha256 })
    };
    guest.change(&guest.accounts.agent, find, write).await
}
