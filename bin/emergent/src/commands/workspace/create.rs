//! `emergent workspace create`.

use std::time::{Duration, Instant};

use emergent_api::{
    resources::workspaces::{
        request::{CreateWorkspace, RequestedLimits},
        view::{State, WorkspaceView},
    },
    size::ByteSize,
};
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::Value;

use super::{find::WORKSPACES, set, show};
use crate::{
    cli::CreateArgs,
    client::{Client, ClientError},
    print,
};

/// How long the first answer is waited for; most workspaces are ready by then.
const FIRST_WAIT: u64 = 2;
/// How often a workspace that takes longer is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Makes a workspace, waits for it, and shows it.
pub(super) async fn run(client: &Client, arguments: &CreateArgs, json: bool) -> Result<(), ClientError> {
    let progress = print::spinner("making the workspace");
    let made = make(client, arguments, &progress).await;
    progress.finish_and_clear();
    let workspace = made?;
    if json {
        print::json(&workspace);
    } else {
        show::warnings(&workspace);
        if let (State::Ready, Some(ms)) = (workspace.state, workspace.ready_in_ms) {
            print::notice(&format!("ready in {ms} ms\n"));
        }
        print::line(&workspace.id.to_string());
    }
    Ok(())
}

async fn make(client: &Client, arguments: &CreateArgs, progress: &ProgressBar) -> Result<WorkspaceView, ClientError> {
    let started = Instant::now();
    let first_wait = FIRST_WAIT.min(arguments.wait);
    let mut request = client.request(Method::POST, WORKSPACES)?.query(&[("wait_seconds", first_wait)]);
    if let Some(key) = &arguments.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let mut workspace: WorkspaceView = client.answer(request.json(&body(arguments)?)).await?;
    while workspace.state == State::Creating && started.elapsed() < Duration::from_secs(arguments.wait) {
        show_pull(&workspace, progress);
        tokio::time::sleep(LOOK).await;
        workspace = client.get(&format!("{WORKSPACES}/{}", workspace.id)).await?;
    }
    match (&workspace.error, workspace.state) {
        (Some(fault), _) => Err(not_ready(&workspace, fault.message.clone())),
        (None, State::Creating) if arguments.wait > 0 => {
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

fn body(arguments: &CreateArgs) -> Result<CreateWorkspace, ClientError> {
    let CreateArgs { cpu, memory, disk, pids, .. } = *arguments;
    let limits = RequestedLimits { cpu, memory, disk, pids };
    Ok(CreateWorkspace {
        name: arguments.name.clone(),
        labels: arguments.label.iter().cloned().collect(),
        container_type: None,
        provider: word(arguments.provider.as_ref())?,
        base_image: arguments.image.clone(),
        snapshot_id: arguments.snapshot,
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
