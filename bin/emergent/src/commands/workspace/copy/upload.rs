//! The copying into a workspace.

use std::{
    io,
    path::{Path, PathBuf},
};

use emergent_api::http::problem::ProblemKind;
use emergent_guest_proto::files::{FileInfo, FileKind};
use futures::TryStreamExt as _;
use indicatif::ProgressBar;
use reqwest::Method;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::place::{base_name, join};
use crate::{
    client::{Client, ClientError},
    print,
};

/// The most bytes between the packer and the connection.
const BUFFER: usize = 1024 * 1024;

/// Copies standard input to one file.
pub(super) async fn stdin(client: &Client, files: &str, path: &str) -> Result<(), ClientError> {
    if base_name(path).is_none() || path.ends_with('/') {
        return Err(ClientError::Usage("name the file that standard input is to become".to_owned()));
    }
    let progress = print::transfer(None);
    let input = counted(tokio::io::stdin(), progress.clone());
    let sent = client.send_bytes(Method::PUT, &format!("{files}/content"), &[("path", path)], input).await;
    progress.finish_and_clear();
    sent
}

/// Copies a local file or directory.
pub(super) async fn path(client: &Client, source: &Path, files: &str, path: &str) -> Result<(), ClientError> {
    let metadata = tokio::fs::metadata(source).await.map_err(|error| local("read", source, error))?;
    let target = target(client, files, source, path).await?;
    if metadata.is_dir() {
        directory(client, files, source, &target).await
    } else {
        file(client, files, source, &target, &metadata).await
    }
}

async fn file(
    client: &Client,
    files: &str,
    source: &Path,
    target: &str,
    metadata: &std::fs::Metadata,
) -> Result<(), ClientError> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tokio::fs::File::open(source).await.map_err(|error| local("read", source, error))?;
    let mode = format!("{:03o}", metadata.permissions().mode() & 0o777);
    let progress = print::transfer(metadata.is_file().then_some(metadata.len()));
    let bytes = counted(file, progress.clone());
    let query = [("path", target), ("mode", &mode)];
    let sent = client.send_bytes(Method::PUT, &format!("{files}/content"), &query, bytes).await;
    progress.finish_and_clear();
    sent
}

async fn directory(client: &Client, files: &str, source: &Path, target: &str) -> Result<(), ClientError> {
    let (writer, reader) = tokio::io::duplex(BUFFER);
    let root = source.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&root, SyncIoBridge::new(writer)));
    let progress = print::transfer(None);
    let bytes = counted(reader, progress.clone());
    let sent = client.send_bytes(Method::PUT, &format!("{files}/archive"), &[("path", target)], bytes).await;
    progress.finish_and_clear();
    match packing.await {
        // An answer that came early broke the packing off; it says more than the broken pipe.
        Ok(Err(error)) if sent.is_ok() || error.kind() != io::ErrorKind::BrokenPipe => {
            Err(local("read", source, error))
        }
        Ok(_) | Err(_) => sent,
    }
}

fn pack(root: &Path, writer: impl io::Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    builder.append_dir_all("", root)?;
    builder.into_inner()?.flush()
}

/// Returns the path of the copy: below an existing directory, else as given.
async fn target(client: &Client, files: &str, source: &Path, path: &str) -> Result<String, ClientError> {
    let absolute: PathBuf = std::path::absolute(source).map_err(|error| local("read", source, error))?;
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let below = |directory: &str| match (&name, ends_in_dot(source)) {
        (Some(name), false) => join(directory, name),
        _ => directory.to_owned(),
    };
    if path.is_empty() {
        return Ok(below("/workspace"));
    }
    if path.ends_with('/') {
        return Ok(below(path));
    }
    match client.get_with::<FileInfo>(&format!("{files}/stat"), &[("path", path)]).await {
        Ok(info) if info.kind == FileKind::Directory => Ok(below(path)),
        Ok(_) => Ok(path.to_owned()),
        Err(error) if error.is_problem(ProblemKind::FileNotFound) => Ok(path.to_owned()),
        Err(error) => Err(error),
    }
}

/// Whether the path ends in a dot: `cp dir/. ws:target` copies the contents of `dir`, as `cp -a` does.
fn ends_in_dot(source: &Path) -> bool {
    let text = source.as_os_str().as_encoded_bytes();
    text == b"." || text.ends_with(b"/.") || text.ends_with(b"/./")
}

fn counted(
    reader: impl tokio::io::AsyncRead + Send + 'static,
    progress: ProgressBar,
) -> impl futures::Stream<Item = io::Result<bytes::Bytes>> + Send + 'static {
    ReaderStream::with_capacity(reader, 256 * 1024).inspect_ok(move |bytes| progress.inc(bytes.len() as u64))
}

fn local(verb: &str, path: &Path, source: io::Error) -> ClientError {
    ClientError::Local { what: format!("cannot {verb} {}", path.display()), source }
}
