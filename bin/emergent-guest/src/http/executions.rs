//! The requests about executions.

use std::sync::Arc;

use emergent_guest_proto::{
    DEFAULT_TIMEOUT_MS, ErrorCode, ExecutionId, GuestError, RunAs,
    execution::{ExecutionList, OutputQuery, Program, SignalRequest, StartRequest, StdinQuery},
    tools::BashRequest,
};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

use crate::{
    executions::{
        Order,
        execution::{Run, State},
        follow::follow,
        not_running,
    },
    failure::invalid,
    guest::Guest,
    message::{Reply, json, no_content, ok, query, stream},
    process::signal,
};

pub(super) async fn bash(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let request: BashRequest = json(request).await?;
    let order = Order {
        id: request.execution_id,
        program: Program::Shell(request.command),
        workdir: guest.resolve_or_workspace(request.workdir.as_ref()),
        variables: request.env,
        timeout_ms: Some(request.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS)),
        user: permitted(guest, request.user)?,
        stdin: false,
    };
    let run = guest.executions.start(order).await?;
    guest.executions.wait(&run).await.map(|result| ok(&result))
}

pub(super) async fn start(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let request: StartRequest = json(request).await?;
    let order = Order {
        id: request.execution_id,
        program: request.program,
        workdir: guest.resolve_or_workspace(request.workdir.as_ref()),
        variables: request.env,
        timeout_ms: request.timeout_ms,
        user: permitted(guest, request.user)?,
        stdin: request.stdin,
    };
    let run = guest.executions.start(order).await?;
    Ok(ok(&run.describe(guest.executions.directory())))
}

pub(super) fn list(guest: &Guest) -> Reply {
    let executions = &guest.executions;
    let all = executions.list();
    let executions = all.iter().map(|run| run.describe(executions.directory())).collect();
    ok(&ExecutionList { executions })
}

pub(super) fn describe(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    Ok(ok(&find(guest, id)?.describe(guest.executions.directory())))
}

pub(super) fn output(guest: &Guest, id: &str, request: &Request<Incoming>) -> Result<Reply, GuestError> {
    let wanted: OutputQuery = query(request.uri())?;
    Ok(stream(follow(find(guest, id)?, wanted, guest.executions.directory().to_owned())))
}

pub(super) async fn wait(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    let run = find(guest, id)?;
    guest.executions.wait(&run).await.map(|result| ok(&result))
}

pub(super) async fn signal(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let run = find(guest, id)?;
    let SignalRequest { signal: name } = json(request).await?;
    guest.executions.signal(&run, signal_number(&name)?).map(|()| no_content())
}

/// Writes the body to the process as it comes, at the pace at which the process reads.
pub(super) async fn input(guest: &Guest, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let run = find(guest, id)?;
    let wanted: StdinQuery = query(request.uri())?;
    let mut state = run.state.subscribe();
    tokio::select! {
        biased;
        written = pass_on(&run, request.into_body(), wanted) => written.map(|()| no_content()),
        // Also from a caller that sends nothing: it must not keep the pipe, and with it the end of the execution.
        _ = state.wait_for(|state| !matches!(state, State::Running)) => Err(not_running(&run)),
    }
}

pub(super) async fn cancel(guest: &Guest, id: &str) -> Result<Reply, GuestError> {
    let run = find(guest, id)?;
    // A caller that vanishes has cancelled all the same.
    let (cancelling, target) = (Arc::clone(&guest.executions), Arc::clone(&run));
    let cancelled = tokio::spawn(async move { cancelling.cancel(&target).await }).await;
    cancelled.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))??;
    Ok(ok(&run.describe(guest.executions.directory())))
}

/// The number of a signal that a request names.
pub(super) fn signal_number(name: &str) -> Result<i32, GuestError> {
    signal::number(name)
        .ok_or_else(|| invalid("signal", format!("{name:?} is not a signal; use a name such as SIGINT")))
}

/// Writes the body to the process, alone: other writers wait until it is at its end.
async fn pass_on(run: &Run, mut body: Incoming, wanted: StdinQuery) -> Result<(), GuestError> {
    let mut stdin = run.stdin.lock().await;
    let Some(pipe) = stdin.as_mut() else {
        let message = format!("the execution {} takes no standard input, or it is closed", run.id);
        return Err(GuestError::new(ErrorCode::NotRunning, message));
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| invalid("body", format!("the request's body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pipe.write_all(&data).await.map_err(|_| not_running(run))?;
    }
    if wanted.close {
        *stdin = None;
    }
    Ok(())
}

fn find(guest: &Guest, id: &str) -> Result<Arc<Run>, GuestError> {
    let id = ExecutionId::new(id).map_err(|error| invalid("id", error.to_string()))?;
    guest.executions.get(&id)
}

fn permitted(guest: &Guest, user: RunAs) -> Result<RunAs, GuestError> {
    guest.permit(user).map(|()| user)
}
