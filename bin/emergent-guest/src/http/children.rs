//! The requests about children.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::{
    ChildId, ErrorCode, GuestError, MAX_TIMEOUT_MS,
    child::{ChildList, EndRequest, NoteRequest, OFFSET_HEADER, OffsetQuery},
    execution::SignalRequest,
};
use http::Request;
use hyper::body::Incoming;

use super::executions::signal_number;
use crate::{
    children::{self, ChildOrder, attach, child::Child},
    failure::invalid,
    guest::Guest,
    message::{Reply, json, no_content, ok, query, stream},
};

pub(super) async fn spawn(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let order = ChildOrder::check(json(request).await?)?;
    guest.permit(order.request().user)?;
    let workdir = guest.resolve_or_workspace(order.request().workdir.as_ref());
    let child = guest.children.spawn(Arc::clone(&guest.executions), workdir, order).await?;
    Ok(ok(&child.describe()))
}

pub(super) fn list(guest: &Guest) -> Reply {
    let children = guest.children.list().iter().map(|child| child.describe()).collect();
    ok(&ChildList { children })
}

pub(super) fn describe(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    Ok(ok(&find(guest, id)?.describe()))
}

pub(super) fn forget(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    guest.children.forget(&find(guest, id)?.id).map(|()| no_content())
}

pub(super) async fn set_note(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let child = find(guest, id)?;
    let NoteRequest { note } = json(request).await?;
    children::check_note(&note)?;
    child.set_note(note);
    Ok(no_content())
}

pub(super) fn output(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    attach::output(find(guest, id)?, request)
}

pub(super) async fn input(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    attach::input(find(guest, id)?, request).await
}

pub(super) async fn close_input(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    find(guest, id)?.close_stdin().await;
    Ok(no_content())
}

pub(super) fn errors(guest: &Guest, id: &str, request: &Request<Incoming>) -> Result<Reply, GuestError> {
    let OffsetQuery { offset } = query(request.uri())?;
    let (begin, bytes) = find(guest, id)?.stderr.from(offset.unwrap_or(0));
    let mut reply = stream(futures::stream::once(async { Ok(bytes) }));
    reply.headers_mut().insert(OFFSET_HEADER, begin.into());
    Ok(reply)
}

pub(super) async fn signal(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let child = find(guest, id)?;
    let SignalRequest { signal: name } = json(request).await?;
    child.signal(signal_number(&name)?).map(|()| no_content())
}

pub(super) async fn end(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let child = find(guest, id)?;
    let EndRequest { eof_ms, grace_ms } = json(request).await?;
    let [after_eof, grace] = [eof_ms, grace_ms].map(|time| Duration::from_millis(time.min(MAX_TIMEOUT_MS)));
    // A caller that vanishes has ended it all the same.
    let target = Arc::clone(&child);
    let ended = tokio::spawn(async move { target.end(after_eof, grace).await }).await;
    ended.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(ok(&child.describe()))
}

pub(super) async fn wait(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    let child = find(guest, id)?;
    child.wait().await;
    Ok(ok(&child.describe()))
}

fn find(guest: &Guest, id: &str) -> Result<Arc<Child>, GuestError> {
    let id = ChildId::new(id).map_err(|error| invalid("id", error.to_string()))?;
    guest.children.get(&id)
}
