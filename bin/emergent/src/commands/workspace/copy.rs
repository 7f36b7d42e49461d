//! `emergent workspace cp` and `emergent mcp cp`.

mod download;
mod place;
mod unpack;
mod upload;

use self::place::CopyEnd;
use super::find::{self, WORKSPACES};
use crate::{
    client::{Client, ClientError},
    commands::mcp_paths,
};

/// The owner of the files that are copied.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) enum Side {
    /// A workspace.
    Workspace,
    /// A hosted MCP server.
    McpServer,
}

/// Copies files from or to a workspace or a hosted server.
pub(in crate::commands) async fn run(client: &Client, side: Side, from: &str, to: &str) -> Result<(), ClientError> {
    match (CopyEnd::parse(from), CopyEnd::parse(to)) {
        (CopyEnd::Remote { owner, path }, CopyEnd::Local(target)) => {
            download::run(client, &side.files(client, &owner).await?, &path, download::Target::Path(target)).await
        }
        (CopyEnd::Remote { owner, path }, CopyEnd::Stdio) => {
            download::run(client, &side.files(client, &owner).await?, &path, download::Target::Stdout).await
        }
        (CopyEnd::Local(source), CopyEnd::Remote { owner, path }) => {
            upload::path(client, &source, &side.files(client, &owner).await?, &path).await
        }
        (CopyEnd::Stdio, CopyEnd::Remote { owner, path }) => {
            upload::stdin(client, &side.files(client, &owner).await?, &path).await
        }
        (CopyEnd::Remote { .. }, CopyEnd::Remote { .. }) => {
            Err(ClientError::Usage("one of the two must be local; copy by way of a local file".to_owned()))
        }
        (CopyEnd::Local(_) | CopyEnd::Stdio, CopyEnd::Local(_) | CopyEnd::Stdio) => {
            let (place, form) = match side {
                Side::Workspace => ("in a workspace", "WORKSPACE:PATH"),
                Side::McpServer => ("in a hosted server", "SERVER:PATH"),
            };
            Err(ClientError::Usage(format!("one of the two must be {place}; write it as {form}")))
        }
    }
}

// === impl Side ===

impl Side {
    /// Returns the path of the files in the API.
    async fn files(self, client: &Client, owner: &str) -> Result<String, ClientError> {
        match self {
            Self::Workspace => Ok(format!("{WORKSPACES}/{}/files", find::workspace(client, owner).await?)),
            Self::McpServer => Ok(mcp_paths::path(owner, "/files")),
        }
    }
}
