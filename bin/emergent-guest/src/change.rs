//! Requests that ask for a change.

use std::sync::Arc;

use emergent_guest_proto::GuestError;
use http::Request;
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    guest::Guest,
    ledger::Named,
    message::{Reply, json},
};

/// Reads a JSON body that asks for a change, and does it under the name that the request gives it.
///
/// # Errors
/// Those of the reading, of the change, or `call_exists`.
pub async fn change<Q: DeserializeOwned, T: Serialize + Send + 'static, F>(
    guest: &Arc<Guest>,
    request: Request<Incoming>,
    work: impl FnOnce(Arc<Guest>, Q) -> F,
) -> Result<Reply, GuestError>
where
    F: Future<Output = Result<T, GuestError>> + Send + 'static,
{
    let named = Named::of(request.headers())?;
    // Not begun before all of it is there: a body that breaks off asks for nothing.
    let wanted = json(request).await?;
    guest.ledger.run(named, work(Arc::clone(guest), wanted)).await
}
