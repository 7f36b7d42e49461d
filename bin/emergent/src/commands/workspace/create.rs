//! `emergent workspace create`.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use emergent_api::{
    http::size::ByteSize,
    resources::workspaces::{
        request::{CreateWorkspace, RequestedLimits},
        view::{State, WorkspaceView},
    },
};
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use super::{
    INTERRUPTED,
    find::{self, WORKSPACES},
    set, show,
};
use crate::{
    cli::CreateArgs,
    client::{Client, ClientError},
    commands::ended,
    exit::ExitStatus,
    print,
};

/// The time for which the first answer is waited for; most workspaces are ready by then.
const FIRST_WAIT: u64 = 2;
/// The interval between looks at a workspace that takes longer.
const LOOK: Duration = Duration::from_millis(300);

/// Makes a workspace, waits for it, and shows it.
pub(super) async fn run(client: &Client, arguments: &CreateArgs, json: bool) -> ExitStatus {
    let progress = print::spinner("making the workspace");
    let made = make(client, arguments, &progress).await;
    progress.finish_and_clear();
    match made {
        Ok(Some(workspace)) => tell(&workspace, json),
        Ok(None) => return ExitStatus::Command(INTERRUPTED),
        Err(error) => return ended(Err(error)),
    }
    ExitStatus::Success
}

fn tell(workspace: &WorkspaceView, json: bool) {
    if json {
        print::json(workspace);
    } else {
        show::warnings(workspace);
        if let (State::Ready, Some(ms)) = (workspace.state, workspace.ready_in_ms) {
            print::notice(&format!("ready in {ms} ms\n"));
        }
        print::line(&workspace.id.to_string());
    }
}

/// Makes it; `None` when Ctrl-C came before it was ready.
async fn make(
    client: &Client,
    arguments: &CreateArgs,
    progress: &ProgressBar,
) -> Result<Option<WorkspaceView>, ClientError> {
    let (started, wait) = (Instant::now(), Duration::from_secs(arguments.wait));
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut beginning = pin!(begin(client, arguments));
    let (workspace, goes_on) = tokio::select! {
        begun = &mut beginning => (begun?, true),
        // Its id comes with the answer, which does not wait long.
        _ = &mut interrupted => (beginning.await?, false),
    };
    if goes_on {
        let settling = settle(client, workspace.clone(), (started + wait, !wait.is_zero()), progress);
        tokio::select! {
            settled = settling => return settled.map(Some),
            _ = &mut interrupted => {}
        }
    }
    progress.set_message("destroying the unfinished workspace");
    tokio::select! {
        given_up = give_up(client, workspace.id, arguments) => given_up.map(|()| None),
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

/// Destroys what is not wanted any more. With an idempotency key it may be somebody else's, too, and stays.
async fn give_up(client: &Client, id: Uuid, arguments: &CreateArgs) -> Result<(), ClientError> {
    if arguments.idempotency_key.is_some() {
        print::notice(&format!(
            "workspace {id} goes on being made: `emergent workspace show {id}` looks at it, `emergent workspace rm {id}` \
             destroys it\n"
        ));
        return Ok(());
    }
    client.delete(&format!("{WORKSPACES}/{id}")).await?;
    print::notice(&format!("interrupted: workspace {id} is destroyed again\n"));
    Ok(())
}

/// Asks for it, and waits a moment.
async fn begin(client: &Client, arguments: &CreateArgs) -> Result<WorkspaceView, ClientError> {
    let snapshot = match &arguments.snapshot {
        Some(given) => Some(find::snapshot(client, given).await?),
        None => None,
    };
    let first_wait = FIRST_WAIT.min(arguments.wait);
    let mut request = client.request(Method::POST, WORKSPACES)?.query(&[("wait_seconds", first_wait)]);
    if let Some(key) = &arguments.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let begun: Result<WorkspaceView, ClientError> = client.answer(request.json(&body(arguments, snapshot)?)).await;
    begun.map_err(|error| match error.failed_workspace().map(show::remove) {
        Some(advice) => error.advised(advice),
        None => error,
    })
}

/// Waits until it is ready or known not to be.
async fn settle(
    client: &Client,
    mut workspace: WorkspaceView,
    (until, waits): (Instant, bool),
    progress: &ProgressBar,
) -> Result<WorkspaceView, ClientError> {
    while workspace.state == State::Creating && Instant::now() < until {
        show_pull(&workspace, progress);
        tokio::time::sleep(LOOK).await;
        workspace = client.get(&format!("{WORKSPACES}/{}", workspace.id)).await?;
    }
    match (&workspace.error, workspace.state) {
        (Some(fault), _) => {
            let error = not_ready(&workspace, fault.message.clone());
            Err(match show::what_next(&workspace) {
                Some(next) => error.advised(next),
                None => error,
            })
        }
        (None, State::Creating) if waits => {
            Err(not_ready(&workspace, "still being made; `emergent workspace show` tells when it is ready".to_owned()))
        }
        (None, _) => Ok(workspace),
    }
}

pub(super) fn not_ready(workspace: &WorkspaceView, reason: String) -> ClientError {
    ClientError::NotReady { id: workspace.id.to_string(), state: workspace.state.as_str(), reason }
}

fn show_pull(workspace: &WorkspaceView, progress: &ProgressBar) {
    if let Some(pull) = &workspace.pull {
        let (bytes, total) = (ByteSize(pull.bytes), ByteSize(pull.total_bytes));
        let message = format!("pulling {}: {bytes} of {total} {}", workspace.base_image, pull.status);
        progress.set_message(print::printable(&message));
    }
}

fn body(arguments: &CreateArgs, snapshot_id: Option<Uuid>) -> Result<CreateWorkspace, ClientError> {
    let CreateArgs { cpu, memory, disk, pids, .. } = *arguments;
    let limits = RequestedLimits { cpu, memory, disk, pids };
    Ok(CreateWorkspace {
        name: arguments.name.clone(),
        labels: arguments.label.iter().cloned().collect(),
        container_type: None,
        provider: word(arguments.provider.as_ref())?,
        base_image: arguments.image.clone(),
        snapshot_id,
        resource_limits: (limits != RequestedLimits::default()).then_some(limits),
        network: word(arguments.network.as_ref())?,
        environment: arguments.env.iter().cloned().collect(),
        allow_root: arguments.allow_root.then_some(true),
        requirements: None,
        ttl_days: arguments.ttl_days,
        expires_in_seconds: None,
        idle: set::idle(&arguments.idle),
    })
}

/// A word of the command line as one of the API's.
fn word<T: serde::de::DeserializeOwned>(text: Option<&String>) -> Result<Option<T>, ClientError> {
    let value = text.map(|text| serde_json::from_value(Value::String(text.clone())));
    value.transpose().map_err(|error| ClientError::Usage(error.to_string()))
}
