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
use http::Request;
use hyper::body::Incoming;

use crate::{
    guest::Guest,
    ledger::Named,
    message::{Reply, query},
};

/// Answers with the contents of a file, or a part of them.
///
/// # Errors
/// Those of the operation.
pub async fn download(guest: &Arc<Guest>, request: &Request<Incoming>) -> Result<Reply, GuestError> {
    let wanted: PathQuery = query(request.uri())?;
    content::download(guest, wanted, request.headers()).await
}

/// Replaces a file with the request's body.
///
/// # Errors
/// Those of the operation.
pub async fn upload(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let wanted: UploadQuery = query(request.uri())?;
    let named = Named::of(request.headers())?;
    content::upload(guest, named, wanted, request.into_body()).await
}

/// Unpacks the request's body below a directory.
///
/// # Errors
/// Those of the operation.
pub async fn unpack(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let wanted: PathQuery = query(request.uri())?;
    let (named, working) = (Named::of(request.headers())?, Arc::clone(guest));
    // Begun before all of it is there: it unpacks as it comes.
    let unpacking = async move { archive::unpack(&working, wanted, request.into_body()).await };
    guest.ledger.run(named, unpacking).await
}
