//! The handler of each route.

use std::sync::Arc;

use emergent_guest_proto::{CallId, Configuration, GuestError, LastEnd, Route, call::OutcomeQuery};
use http::Request;
use hyper::body::Incoming;

use super::{children, executions, router};
use crate::{
    change::change,
    children::tunnel::tunnel,
    failure::{self, invalid},
    files::{self, entries, moving},
    guest::Guest,
    message::{Reply, failed, json, no_content, ok, query, unsupported},
    process::launch,
    tools, usage,
};

/// Answers a request.
pub(super) async fn answer(guest: Arc<Guest>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let answered = match router::find(request.method(), &path) {
        Some((route, id)) => handle(&guest, route, id, request).await,
        None => Err(unsupported(&request)),
    };
    answered.unwrap_or_else(|error| failed(&error))
}

async fn handle(guest: &Arc<Guest>, route: Route, id: &str, request: Request<Incoming>) -> Result<Reply, GuestError> {
    match route {
        Route::Hello => Ok(ok(&guest.hello())),
        Route::Usage => usage::measure(guest).await.map(|usage| ok(&usage)),
        Route::Configure => configure(guest, request).await,
        Route::Restored => machine_restored(guest, request).await,
        Route::LastEnd => last_end(guest, request).await,
        Route::Shutdown => {
            guest.shutdown.notify_one();
            Ok(no_content())
        }

        Route::Bash => executions::bash(guest, request).await,
        Route::Read => tools::read::read(guest, json(request).await?).await.map(|result| ok(&result)),
        Route::Write => {
            change(guest, request, |guest, wanted| async move { tools::write::write(&guest, wanted).await }).await
        }
        Route::Edit => {
            change(guest, request, |guest, wanted| async move { tools::edit::edit(&guest, wanted).await }).await
        }
        Route::Glob => tools::glob::glob(guest, json(request).await?).await.map(|result| ok(&result)),
        Route::Grep => tools::grep::grep(guest, json(request).await?).await.map(|result| ok(&result)),
        Route::Git => {
            change(guest, request, |guest, wanted| async move { tools::git::git(&guest, wanted).await }).await
        }

        Route::StartExecution => executions::start(guest, request).await,
        Route::ListExecutions => Ok(executions::list(guest)),
        Route::Execution => executions::describe(guest, id),
        Route::ExecutionOutput => executions::output(guest, id, &request),
        Route::SignalExecution => executions::signal(guest, id, request).await,
        Route::ExecutionInput => executions::input(guest, id, request).await,
        Route::CancelExecution => executions::cancel(guest, id).await,
        Route::WaitForExecution => executions::wait(guest, id).await,

        Route::SpawnChild => children::spawn(guest, request).await,
        Route::ListChildren => Ok(children::list(guest)),
        Route::Child => children::describe(guest, id),
        Route::ForgetChild => children::forget(guest, id),
        Route::SetChildNote => children::set_note(guest, id, request).await,
        Route::ChildOutput => children::output(guest, id, request),
        Route::ChildInput => children::input(guest, id, request).await,
        Route::CloseChildInput => children::close_input(guest, id).await,
        Route::ChildErrors => children::errors(guest, id, &request),
        Route::SignalChild => children::signal(guest, id, request).await,
        Route::EndChild => children::end(guest, id, request).await,
        Route::WaitForChild => children::wait(guest, id).await,
        Route::Tunnel => tunnel(request).await,

        Route::Download => files::download(guest, &request).await,
        Route::Upload => files::upload(guest, request).await,
        Route::Pack => files::archive::pack(guest, query(request.uri())?).await,
        Route::Unpack => files::unpack(guest, request).await,
        Route::DescribeFile => entries::stat(guest, query(request.uri())?).await.map(|info| ok(&info)),
        Route::ListFiles => entries::list(guest, query(request.uri())?).await.map(|list| ok(&list)),
        Route::MakeDirectory => {
            change(guest, request, |guest, wanted| async move { entries::make_directory(&guest, wanted).await }).await
        }
        Route::MoveFile => {
            change(guest, request, |guest, wanted| async move { moving::rename(&guest, wanted).await }).await
        }
        Route::RemoveFile => {
            change(guest, request, |guest, wanted| async move { entries::remove(&guest, wanted).await }).await
        }

        Route::CallOutcome => outcome(guest, id, &request).await,
    }
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

async fn configure(guest: &Guest, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let configuration: Configuration = json(request).await?;
    launch::check_variables("environment", &configuration.environment)?;
    let kept = guest.configuration.take(configuration);
    kept.map_err(|error| failure::at(&guest.settings.state_dir, "keep what was handed over in", &error))?;
    Ok(no_content())
}

async fn last_end(guest: &Guest, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let LastEnd { reason } = json(request).await?;
    guest.executions.explain_lost(&reason);
    Ok(no_content())
}
