//! The write tool.

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{WriteRequest, WriteResult},
};

use crate::{files::replace, guest::Guest};

/// Writes a whole file, atomically.
///
/// # Errors
/// That of the file system; the old contents are kept then.
pub async fn write(guest: &Guest, request: WriteRequest) -> Result<WriteResult, GuestError> {
    let path = guest.resolve(&request.file_path);
    let bytes_written = request.content.len() as u64;
    guest
        .as_agent(move || {
            let created = replace::replace(&path, request.content.as_bytes())?;
            Ok(WriteResult { file_path: GuestPath::from(path.as_path()), bytes_written, created })
        })
        .await
}
