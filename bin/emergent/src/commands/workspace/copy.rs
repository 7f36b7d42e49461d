//! `emergent workspace cp`.

mod download;
mod place;
mod upload;

use self::place::Place;
use crate::{
    cli::CopyArgs,
    client::{Client, ClientError},
};

/// Copies one way or the other.
pub(super) async fn run(client: &Client, arguments: &CopyArgs) -> Result<(), ClientError> {
    let (from, to) = (Place::parse(&arguments.from), Place::parse(&arguments.to));
    match (from, to) {
        (Place::Remote { workspace, path }, Place::Local(target)) => {
            download::run(client, &workspace, &path, download::Target::Path(target)).await
        }
        (Place::Remote { workspace, path }, Place::Stdio) => {
            download::run(client, &workspace, &path, download::Target::Stdout).await
        }
        (Place::Local(source), Place::Remote { workspace, path }) => {
            upload::path(client, &source, &workspace, &path).await
        }
        (Place::Stdio, Place::Remote { workspace, path }) => upload::stdin(client, &workspace, &path).await,
        (Place::Remote { .. }, Place::Remote { .. }) => {
            Err(ClientError::Usage("one of the two must be local; copy by way of a local file".to_owned()))
        }
        (Place::Local(_) | Place::Stdio, Place::Local(_) | Place::Stdio) => {
            Err(ClientError::Usage("one of the two must be in a workspace; write it as WORKSPACE:PATH".to_owned()))
        }
    }
}
