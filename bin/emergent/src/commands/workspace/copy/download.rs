//! Out of a workspace. What comes from there may be hostile: an archive cannot write outside its target.

use std::{
    io,
    path::{Path, PathBuf},
};

use emergent_guest_proto::files::{FileInfo, FileKind};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::Response;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::place::base_name;
use crate::{
    client::{Client, ClientError},
    commands::workspace::find::{self, WORKSPACES},
    print,
};

/// Where a copy goes.
pub(super) enum Target {
    /// A path on this machine.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// Copies a file or directory.
pub(super) async fn run(client: &Client, workspace: &str, path: &str, target: Target) -> Result<(), ClientError> {
    let id = find::workspace(client, workspace).await?;
    let files = format!("{WORKSPACES}/{id}/files");
    let path = if path.is_empty() { "/workspace" } else { path };
    let query = [("path", path)];
    let info: FileInfo = client.get_with(&format!("{files}/stat"), &query).await?;
    let is_directory = info.kind == FileKind::Directory;
    let route = if is_directory { "archive" } else { "content" };
    let response = client.get_bytes(&format!("{files}/{route}"), &query).await?;
    match target {
        Target::Stdout => to_stdout(response).await,
        Target::Path(target) => {
            let target = below_directory(target, path);
            if is_directory { unpack(response, target).await } else { save(response, &target).await }
        }
    }
}

/// Into a directory that is there, a copy goes by its own name.
fn below_directory(target: PathBuf, path: &str) -> PathBuf {
    match base_name(path) {
        Some(name) if target.is_dir() && !path.ends_with("/.") => target.join(name),
        _ => target,
    }
}

async fn to_stdout(response: Response) -> Result<(), ClientError> {
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(broken_off)?;
        match print::raw_out(&chunk) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(ClientError::Local { what: "the output cannot be written".to_owned(), source }),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// To a file, which appears when all of it is there.
async fn save(response: Response, target: &Path) -> Result<(), ClientError> {
    let progress = print::transfer(response.content_length());
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = target.with_file_name(name);
    let failed = |error| local("write", target, error);
    let saved = async {
        let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
        let mut bytes = response.bytes_stream();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(broken_off)?;
            file.write_all(&chunk).await.map_err(failed)?;
            progress.inc(chunk.len() as u64);
        }
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&part, target).await.map_err(failed)
    };
    let saved = saved.await;
    progress.finish_and_clear();
    if saved.is_err() {
        tokio::fs::remove_file(&part).await.ok();
    }
    saved
}

async fn unpack(response: Response, target: PathBuf) -> Result<(), ClientError> {
    let progress = print::transfer(None);
    let counter = progress.clone();
    let bytes = response.bytes_stream().map_err(io::Error::other);
    let bytes = bytes.inspect_ok(move |chunk| counter.inc(chunk.len() as u64));
    let reader = StreamReader::new(Box::pin(bytes));
    let into = target.clone();
    let unpacking = tokio::task::spawn_blocking(move || -> io::Result<()> {
        std::fs::create_dir_all(&into)?;
        // `unpack` refuses what would leave the directory.
        tar::Archive::new(SyncIoBridge::new(reader)).unpack(&into)
    });
    let unpacked = unpacking.await;
    progress.finish_and_clear();
    match unpacked {
        Ok(result) => result.map_err(|error| local("unpack into", &target, error)),
        Err(panicked) => Err(local("unpack into", &target, io::Error::other(panicked))),
    }
}

fn broken_off(error: reqwest::Error) -> ClientError {
    ClientError::Local { what: "the copy broke off".to_owned(), source: io::Error::other(error) }
}

fn local(verb: &str, path: &Path, source: io::Error) -> ClientError {
    ClientError::Local { what: format!("cannot {verb} {}", path.display()), source }
}
