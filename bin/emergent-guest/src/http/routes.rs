//! Which request is answered by what.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::{
    CallId, ChildId, ErrorCode, ExecutionId, GuestError, HandOver, LastEnd, MAX_TIMEOUT_MS, RunAs,
    call::OutcomeQuery,
    child::{ChildList, EndRequest, NoteRequest, OFFSET_HEADER, OffsetQuery},
    execution::{ExecutionList, OutputQuery, SignalRequest, StartRequest, StdinQuery},
    tools::BashRequest,
};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

use crate::{
    change::change,
    children::{self, ChildOrder, attach, tunnel::tunnel},
    executions::{
        Order,
        follow::follow,
        not_running,
        run::{Run, State},
    },
    failure::{self, invalid},
    files,
    guest::Guest,
    message::{Reply, failed, json, no_content, ok, query, stream, unsupported},
    process::{launch, signal},
    tools, usage,
};

/// Answers a request.
pub(super) async fn answer(guest: Arc<Guest>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    let answered = match segments.as_slice() {
        ["hello"] if get => Ok(ok(&guest.hello())),
        ["usage"] if get => usage::measure(&guest).await.map(|usage| ok(&usage)),
        ["machine", "restored"] if post => machine_restored(&guest, request).await,
        ["hand-over"] if post => hand_over(&guest, request).await,
        ["last-end"] if post => last_end(&guest, request).await,
        ["shutdown"] if post => {
            guest.shutdown.notify_one();
            Ok(no_content())
        }
        ["tools", tool] if post => tool_call(&guest, tool, request).await,
        ["executions", rest @ ..] => execution_call(&guest, rest, request).await,
        ["children", rest @ ..] => child_call(&guest, rest, request).await,
        ["calls", id] if get => outcome(&guest, id, &request).await,
        ["tunnel"] if post => tunnel(request).await,
        ["files", operation] => files::answer(&guest, operation, request).await,
        _ => Err(unsupported(&request)),
    };
    answered.unwrap_or_else(|error| failed(&error))
}

async fn outcome(guest: &Guest, id: &str, request: &Request<Incoming>) -> Result<Reply, GuestError> {
    let call = CallId::new(id).map_err(|error| invalid("id", error.to_string()))?;
    let OutcomeQuery { wait } = query(request.uri())?;
    Ok(ok(&guest.ledger.outcome(&call, wait).await))
}

async fn machine_restored(guest: &Guest, request: Request<Incoming>) -> Result<Reply, GuestError> {
    guest.restored(json(request).await?).await?;
    Ok(ok(&guest.hello()))
}

async fn hand_over(guest: &Guest, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let hand_over: HandOver = json(request).await?;
    launch::check_variables("environment", &hand_over.environment)?;
    let kept = guest.handed_over.take(hand_over);
    kept.map_err(|error| failure::at(&guest.settings.state_dir, "keep what was handed over in", &error))?;
    Ok(no_content())
}

async fn last_end(guest: &Guest, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let LastEnd { reason } = json(request).await?;
    guest.executions.explain_lost(&reason);
    Ok(no_content())
}

async fn tool_call(guest: &Arc<Guest>, tool: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    match tool {
        "bash" => bash(guest, json(request).await?).await,
        "read" => tools::read::read(guest, json(request).await?).await.map(|result| ok(&result)),
        "write" => {
            change(guest, request, |guest, wanted| async move { tools::write::write(&guest, wanted).await }).await
        }
        "edit" => change(guest, request, |guest, wanted| async move { tools::edit::edit(&guest, wanted).await }).await,
        "glob" => tools::glob::glob(guest, json(request).await?).await.map(|result| ok(&result)),
        "grep" => tools::grep::grep(guest, json(request).await?).await.map(|result| ok(&result)),
        "git" => change(guest, request, |guest, wanted| async move { tools::git::git(&guest, wanted).await }).await,
        _ => Err(unsupported(&request)),
    }
}

async fn bash(guest: &Arc<Guest>, request: BashRequest) -> Result<Reply, GuestError> {
    let order = Order {
        id: request.execution_id,
        program: emergent_guest_proto::execution::Program::Shell(request.command),
        workdir: guest.resolve_or_workspace(request.workdir.as_ref()),
        variables: request.env,
        timeout_ms: Some(request.timeout_ms.unwrap_or(emergent_guest_proto::DEFAULT_TIMEOUT_MS)),
        user: permitted(guest, request.user)?,
        stdin: false,
    };
    let run = guest.executions.start(order).await?;
    guest.executions.wait(&run).await.map(|result| ok(&result))
}

async fn execution_call(
    guest: &Arc<Guest>,
    segments: &[&str],
    request: Request<Incoming>,
) -> Result<Reply, GuestError> {
    let executions = &guest.executions;
    let find = |id: &str| {
        ExecutionId::new(id).map_err(|error| invalid("id", error.to_string())).and_then(|id| executions.get(&id))
    };
    match (request.method(), segments) {
        (&Method::POST, []) => start(guest, json(request).await?).await,
        (&Method::GET, []) => {
            let all = executions.list();
            let executions = all.iter().map(|run| run.describe(executions.directory())).collect();
            Ok(ok(&ExecutionList { executions }))
        }
        (&Method::GET, [id]) => Ok(ok(&find(id)?.describe(executions.directory()))),
        (&Method::GET, [id, "output"]) => {
            let wanted: OutputQuery = query(request.uri())?;
            Ok(stream(follow(find(id)?, wanted, executions.directory().to_owned())))
        }
        (&Method::GET, [id, "wait"]) => executions.wait(&find(id)?).await.map(|result| ok(&result)),
        (&Method::POST, [id, "signal"]) => {
            let run = find(id)?;
            let SignalRequest { signal: name } = json(request).await?;
            executions.signal(&run, signal_number(&name)?).map(|()| no_content())
        }
        (&Method::POST, [id, "stdin"]) => {
            let run = find(id)?;
            write_stdin(&run, request).await.map(|()| no_content())
        }
        (&Method::POST, [id, "cancel"]) => {
            let run = find(id)?;
            // A caller that vanishes has cancelled all the same.
            let (cancelling, target) = (Arc::clone(executions), Arc::clone(&run));
            let cancelled = tokio::spawn(async move { cancelling.cancel(&target).await }).await;
            cancelled.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))??;
            Ok(ok(&run.describe(executions.directory())))
        }
        _ => Err(unsupported(&request)),
    }
}

async fn child_call(guest: &Arc<Guest>, segments: &[&str], request: Request<Incoming>) -> Result<Reply, GuestError> {
    let find = |id: &str| {
        ChildId::new(id).map_err(|error| invalid("id", error.to_string())).and_then(|id| guest.children.get(&id))
    };
    match (request.method(), segments) {
        (&Method::POST, []) => {
            let order = ChildOrder::check(json(request).await?)?;
            guest.permit(order.request().user)?;
            let workdir = guest.resolve_or_workspace(order.request().workdir.as_ref());
            let child = guest.children.spawn(Arc::clone(&guest.executions), workdir, order).await?;
            Ok(ok(&child.describe()))
        }
        (&Method::GET, []) => {
            let children = guest.children.list().iter().map(|child| child.describe()).collect();
            Ok(ok(&ChildList { children }))
        }
        (&Method::GET, [id]) => Ok(ok(&find(id)?.describe())),
        (&Method::DELETE, [id]) => guest.children.forget(&find(id)?.id).map(|()| no_content()),
        (&Method::POST, [id, "note"]) => {
            let child = find(id)?;
            let NoteRequest { note } = json(request).await?;
            children::check_note(&note)?;
            child.set_note(note);
            Ok(no_content())
        }
        (&Method::POST, [id, "stdout"]) => attach::output(find(id)?, request),
        (&Method::POST, [id, "stdin"]) => attach::input(find(id)?, request).await,
        (&Method::POST, [id, "close-stdin"]) => {
            find(id)?.close_stdin().await;
            Ok(no_content())
        }
        (&Method::GET, [id, "stderr"]) => {
            let OffsetQuery { offset } = query(request.uri())?;
            let (begin, bytes) = find(id)?.stderr.from(offset.unwrap_or(0));
            let mut reply = stream(futures::stream::once(async { Ok(bytes) }));
            reply.headers_mut().insert(OFFSET_HEADER, begin.into());
            Ok(reply)
        }
        (&Method::POST, [id, "signal"]) => {
            let child = find(id)?;
            let SignalRequest { signal: name } = json(request).await?;
            child.signal(signal_number(&name)?).map(|()| no_content())
        }
        (&Method::POST, [id, "end"]) => {
            let child = find(id)?;
            let EndRequest { eof_ms, grace_ms } = json(request).await?;
            let [after_eof, grace] = [eof_ms, grace_ms].map(|time| Duration::from_millis(time.min(MAX_TIMEOUT_MS)));
            // A caller that vanishes has ended it all the same.
            let target = Arc::clone(&child);
            let ended = tokio::spawn(async move { target.end(after_eof, grace).await }).await;
            ended.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))?;
            Ok(ok(&child.describe()))
        }
        (&Method::GET, [id, "wait"]) => {
            let child = find(id)?;
            child.wait().await;
            Ok(ok(&child.describe()))
        }
        _ => Err(unsupported(&request)),
    }
}

fn signal_number(name: &str) -> Result<i32, GuestError> {
    signal::number(name)
        .ok_or_else(|| invalid("signal", format!("{name:?} is not a signal; use a name such as SIGINT")))
}

async fn start(guest: &Arc<Guest>, request: StartRequest) -> Result<Reply, GuestError> {
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

/// Writes the body to the process as it comes, at the pace at which the process reads.
async fn write_stdin(run: &Run, request: Request<Incoming>) -> Result<(), GuestError> {
    let wanted: StdinQuery = query(request.uri())?;
    let mut state = run.state.subscribe();
    tokio::select! {
        biased;
        written = pass_on(run, request.into_body(), wanted) => written,
        // Also from a caller that sends nothing: it must not keep the pipe, and with it the end of the execution.
        _ = state.wait_for(|state| !matches!(state, State::Running)) => Err(not_running(run)),
    }
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

fn permitted(guest: &Guest, user: RunAs) -> Result<RunAs, GuestError> {
    guest.permit(user).map(|()| user)
}
