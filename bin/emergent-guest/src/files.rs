//! Raw files: contents of any size, archives, and what stands in directories.

pub mod archive;
pub mod content;
pub mod entries;
pub mod hash;
mod in_place;
pub mod locks;
pub mod moving;
pub mod replace;
pub mod target;

use std::sync::Arc;

use emergent_guest_proto::{
    GuestError,
    files::{MoveRequest, PathQuery, PathRequest, RemoveRequest, UploadQuery},
};
use http::{Method, Request};
use hyper::body::Incoming;

use crate::{
    guest::Guest,
    http::message::{Reply, json, no_content, ok, query},
    http::unsupported,
};

/// Answers a request below `/v1/files`.
///
/// # Errors
/// Those of the operation.
pub async fn answer(guest: &Arc<Guest>, operation: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    match (request.method(), operation) {
        (&Method::GET, "content") => {
            let wanted: PathQuery = query(request.uri())?;
            content::download(guest, wanted, request.headers()).await
        }
        (&Method::PUT, "content") => {
            let wanted: UploadQuery = query(request.uri())?;
            content::upload(guest, wanted, request.into_body()).await.map(|info| ok(&info))
        }
        (&Method::GET, "archive") => archive::pack(guest, query(request.uri())?).await,
        (&Method::PUT, "archive") => {
            let wanted: PathQuery = query(request.uri())?;
            archive::unpack(guest, wanted, request.into_body()).await.map(|()| no_content())
        }
        (&Method::GET, "stat") => entries::stat(guest, query(request.uri())?).await.map(|info| ok(&info)),
        (&Method::GET, "list") => entries::list(guest, query(request.uri())?).await.map(|list| ok(&list)),
        (&Method::POST, "mkdir") => {
            let wanted: PathRequest = json(request).await?;
            entries::make_directory(guest, wanted).await.map(|info| ok(&info))
        }
        (&Method::POST, "move") => {
            let wanted: MoveRequest = json(request).await?;
            moving::rename(guest, wanted).await.map(|info| ok(&info))
        }
        (&Method::POST, "remove") => {
            let wanted: RemoveRequest = json(request).await?;
            entries::remove(guest, wanted).await.map(|()| no_content())
        }
        _ => Err(unsupported(&request)),
    }
}
