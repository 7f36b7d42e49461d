//! Raw files: contents of any size, archives, and what stands in directories.

pub mod archive;
pub mod content;
pub mod entries;
pub mod hash;
mod in_place;
pub mod moving;
pub mod open;
pub mod replace;
pub mod target;

use std::sync::Arc;

use emergent_guest_proto::{
    GuestError,
    files::{PathQuery, UploadQuery},
};
use http::{Method, Request};
use hyper::body::Incoming;

use crate::{
    change::change,
    guest::Guest,
    ledger::Named,
    message::{Reply, ok, query, unsupported},
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
            let named = Named::of(request.headers())?;
            content::upload(guest, named, wanted, request.into_body()).await
        }
        (&Method::GET, "archive") => archive::pack(guest, query(request.uri())?).await,
        (&Method::PUT, "archive") => {
            let wanted: PathQuery = query(request.uri())?;
            let (named, working) = (Named::of(request.headers())?, Arc::clone(guest));
            // Begun before all of it is there: it unpacks as it comes.
            let unpacking = async move { archive::unpack(&working, wanted, request.into_body()).await };
            guest.ledger.run(named, unpacking).await
        }
        (&Method::GET, "stat") => entries::stat(guest, query(request.uri())?).await.map(|info| ok(&info)),
        (&Method::GET, "list") => entries::list(guest, query(request.uri())?).await.map(|list| ok(&list)),
        (&Method::POST, "mkdir") => {
            change(guest, request, |guest, wanted| async move { entries::make_directory(&guest, wanted).await }).await
        }
        (&Method::POST, "move") => {
            change(guest, request, |guest, wanted| async move { moving::rename(&guest, wanted).await }).await
        }
        (&Method::POST, "remove") => {
            change(guest, request, |guest, wanted| async move { entries::remove(&guest, wanted).await }).await
        }
        _ => Err(unsupported(&request)),
    }
}
