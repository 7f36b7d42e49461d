//! `emergent workspace files …`: what stands in a workspace, and removing it without a program that runs inside.

use chrono::DateTime;
use emergent_api::http::{problem::ProblemKind, size::ByteSize};
use emergent_guest_proto::{
    GuestPath,
    files::{FileInfo, FileKind, FileList, MoveRequest, PathRequest, RemoveRequest},
};
use reqwest::Method;
use serde::Serialize;

use super::{
    find::{self, WORKSPACES},
    report,
};
use crate::{
    cli::{FilesCommand, RemoveFilesArgs},
    client::{Client, ClientError},
    commands::{ended, env::quoted},
    exit::ExitStatus,
    print,
};

/// Does it.
pub(super) async fn run(client: &Client, command: &FilesCommand, json: bool) -> ExitStatus {
    match command {
        FilesCommand::Ls { workspace, path } => ended(ls(client, workspace, path, json).await),
        FilesCommand::Rm(which) => remove(client, which).await,
        FilesCommand::Mv { workspace, from, to } => ended(rename(client, workspace, (from, to)).await),
        FilesCommand::Mkdir { workspace, path } => ended(make_directory(client, workspace, path).await),
    }
}

async fn ls(client: &Client, workspace: &str, path: &str, json: bool) -> Result<(), ClientError> {
    let files = files_of(client, workspace).await?;
    let query = [("path", path)];
    let info: FileInfo = client.get_with(&format!("{files}/stat"), &query).await?;
    let list = match info.kind {
        FileKind::Directory => client.get_with(&format!("{files}/list"), &query).await?,
        FileKind::File | FileKind::Symlink | FileKind::Other => FileList { entries: vec![info], truncated: false },
    };
    if json {
        print::json(&list);
        return Ok(());
    }
    print::table(["kind", "mode", "size", "modified", "path"], list.entries.iter().map(row));
    if list.truncated {
        print::notice("there are more: only the first 10000 are shown\n");
    }
    Ok(())
}

fn row(info: &FileInfo) -> [String; 5] {
    let kind = match info.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "link",
        FileKind::Other => "other",
    };
    let modified = DateTime::from_timestamp_millis(info.modified_at_ms);
    let path = match &info.target {
        Some(target) => format!("{} -> {target}", info.path),
        None => info.path.to_string(),
    };
    [
        kind.to_owned(),
        format!("{:03o}", info.mode),
        ByteSize(info.size).to_string(),
        modified.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
        path,
    ]
}

/// Removes them; one that fails does not keep the others from it.
async fn remove(client: &Client, which: &RemoveFilesArgs) -> ExitStatus {
    let files = match files_of(client, &which.workspace).await {
        Ok(files) => files,
        Err(error) => return ended(Err(error)),
    };
    let mut failed = Vec::new();
    for path in &which.paths {
        let removed = async {
            let request = RemoveRequest { path: guest_path(path)?, recursive: which.recursive };
            post(client, &format!("{files}/remove"), &request).await
        };
        let advised = |error: ClientError| match error.is_problem(ProblemKind::AlreadyExists) {
            true if !which.recursive => error.advised(format!(
                "-r removes a directory with all that is in it:\n  emergent workspace files rm -r {} {}",
                which.workspace,
                quoted(path)
            )),
            _ => error,
        };
        failed.extend(removed.await.err().map(advised));
    }
    report(failed.into_iter())
}

async fn rename(client: &Client, workspace: &str, (from, to): (&str, &str)) -> Result<(), ClientError> {
    let request = MoveRequest { from: guest_path(from)?, to: guest_path(to)? };
    post(client, &format!("{}/move", files_of(client, workspace).await?), &request).await
}

async fn make_directory(client: &Client, workspace: &str, path: &str) -> Result<(), ClientError> {
    let request = PathRequest { path: guest_path(path)? };
    post(client, &format!("{}/mkdir", files_of(client, workspace).await?), &request).await
}

async fn files_of(client: &Client, workspace: &str) -> Result<String, ClientError> {
    Ok(format!("{WORKSPACES}/{}/files", find::workspace(client, workspace).await?))
}

async fn post(client: &Client, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
    client.send(client.request(Method::POST, path)?.json(body)).await.map(drop)
}

fn guest_path(text: &str) -> Result<GuestPath, ClientError> {
    text.parse().map_err(|error| ClientError::Usage(format!("{text:?}: {error}")))
}
