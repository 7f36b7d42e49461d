//! `emergent mcp add` and `emergent mcp update`.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use emergent_api::resources::{
    mcp_servers::{
        request::{
            McpServerRequest, PackageRequest, RegistryName, ShareMode, SharedWorkspace, SharingName, VolumeName,
        },
        view::{McpServerView, McpState},
    },
    workspaces::request::RequestedLimits,
};
use indicatif::ProgressBar;
use reqwest::Method;
use tokio::time::sleep;

use super::{SERVERS, path, runs, short, told};
use crate::{
    cli::{McpAddArgs, McpSpecArgs, McpUpdateArgs},
    client::{Client, ClientError},
    commands::workspace::{INTERRUPTED, find},
    exit::ExitStatus,
    print,
};

/// The time for which the first answer is waited for, in seconds; most servers that install nothing run by then.
const FIRST_WAIT: u64 = 2;
/// The interval between looks at a server that takes longer.
const LOOK: Duration = Duration::from_millis(300);

/// Registers a server and waits for its first answer.
pub(super) async fn add(client: &Client, new: McpAddArgs, json: bool) -> Result<ExitStatus, ClientError> {
    let what = &new.what;
    if what.command.is_empty() && what.image.is_none() && what.npm.is_none() && what.pypi.is_none() {
        return Err(ClientError::Usage(nothing_to_run(&new.name)));
    }
    let wait = if new.no_wait { 0 } else { new.wait };
    let body = McpServerRequest { name: Some(new.name), ..request(client, new.what, BTreeMap::new()).await? };
    let progress = print::spinner("starting the server");
    let made = register(client, &body, Duration::from_secs(wait), &progress).await;
    progress.finish_and_clear();
    let (made, interrupted) = made?;
    if interrupted && made.state == McpState::Starting {
        told(&made, json);
        let name = &made.name;
        print::notice(&format!(
            "interrupted: {name} goes on being installed and started; `emergent mcp ls` shows how far it is, `emergent mcp rm \
             {name}` removes it\n"
        ));
        return Ok(ExitStatus::Command(INTERRUPTED));
    }
    if wait == 0 && made.state == McpState::Starting {
        told(&made, json);
        return Ok(ExitStatus::Success);
    }
    Ok(runs(&made, json))
}

/// Registers a server and waits until it is no longer starting; returns it, and whether Ctrl-C came before.
async fn register(
    client: &Client,
    body: &McpServerRequest,
    wait: Duration,
    progress: &ProgressBar,
) -> Result<(McpServerView, bool), ClientError> {
    let until = Instant::now() + wait;
    let first_wait = FIRST_WAIT.min(wait.as_secs());
    let request = client.request(Method::POST, SERVERS)?.query(&[("wait_seconds", first_wait)]).json(body);
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut registering = pin!(client.answer::<McpServerView>(request));
    let mut made = tokio::select! {
        made = &mut registering => made?,
        // The answer, which does not wait long, says whether it is registered.
        _ = &mut interrupted => return Ok((registering.await?, true)),
    };
    while made.state == McpState::Starting && Instant::now() < until {
        let said = made.message.as_deref().and_then(|message| message.lines().next());
        progress.set_message(print::printable(said.unwrap_or("starting the server")));
        let looking = async {
            sleep(LOOK).await;
            client.get::<McpServerView>(&path(&made.name, "")).await
        };
        tokio::select! {
            looked = looking => made = looked?,
            _ = &mut interrupted => return Ok((made, true)),
        }
    }
    Ok((made, false))
}

fn nothing_to_run(name: &str) -> String {
    format!(
        "say what {name} is to run: a package, an image, or a command after --; for example\n  \
         emergent mcp add {name} --pypi mcp-server-time\n  \
         emergent mcp add {name} -- python3 /workspace/server.py"
    )
}

/// Changes a server. One that did not run before is tried again with the change, and is not expected to run.
pub(super) async fn update(client: &Client, change: McpUpdateArgs, json: bool) -> Result<ExitStatus, ClientError> {
    let volumes = if change.no_volume.is_empty() && change.what.volume.is_empty() && change.what.share.is_empty() {
        BTreeMap::new()
    } else {
        // They are changed as a whole; those that are not named stay.
        let before: McpServerView = client.get(&path(&change.name, "")).await?;
        let mut volumes = before.volumes;
        for name in &change.no_volume {
            if volumes.remove(name).is_none() {
                return Err(ClientError::Usage(format!("the server has no volume {name:?}")));
            }
        }
        volumes
    };
    let mut body = request(client, change.what, volumes).await?;
    if change.per_session {
        body.sharing = Some(SharingName::PerSession);
    }
    if change.no_root {
        body.run_as_root = Some(false);
    }
    if !change.no_volume.is_empty() {
        body.volumes.get_or_insert_default();
    }
    if body == McpServerRequest::default() {
        return Err(ClientError::Usage("say what is to change; `emergent mcp update --help` lists it".to_owned()));
    }
    let settings = McpServerRequest {
        restart_policy: body.restart_policy,
        call_timeout_ms: body.call_timeout_ms,
        ..McpServerRequest::default()
    };
    let only_settings = body == settings;
    let progress = print::spinner("changing the server");
    let request = client.request(Method::PATCH, &path(&change.name, ""))?.json(&body);
    let changed = client.answer::<McpServerView>(request).await;
    progress.finish_and_clear();
    let changed = changed?;
    if only_settings && changed.state != McpState::Running {
        if json {
            print::json(&changed);
        } else {
            print::line(&format!("saved; {} did not run before either: it is {}", changed.name, short(&changed)));
        }
        return Ok(ExitStatus::Success);
    }
    Ok(runs(&changed, json))
}

/// Returns the request that the arguments describe. Their volumes are added to `volumes`, those that the server has.
async fn request(
    client: &Client,
    what: McpSpecArgs,
    mut volumes: BTreeMap<String, VolumeName>,
) -> Result<McpServerRequest, ClientError> {
    volumes.extend(what.volume.into_iter().map(|(name, path)| (name, VolumeName::Own(path))));
    for share in what.share {
        let workspace = find::workspace(client, &share.workspace).await?.to_string();
        let mode = if share.writable { ShareMode::Rw } else { ShareMode::Ro };
        let shared = SharedWorkspace { workspace, path: share.path, mode };
        volumes.insert(share.volume, VolumeName::Workspace(shared));
    }
    let package = match (what.npm, what.pypi) {
        (Some(npm), _) => Some((RegistryName::Npm, npm)),
        (None, pypi) => pypi.map(|pypi| (RegistryName::Pypi, pypi)),
    };
    let limits = RequestedLimits { cpu: what.cpu, memory: what.memory, disk: what.disk, ..RequestedLimits::default() };
    Ok(McpServerRequest {
        name: None,
        image: what.image,
        cmd: (!what.command.is_empty()).then_some(what.command),
        workdir: None,
        stdio_bridge: what.port.map(|_| false),
        port: what.port,
        path: what.path,
        package: package.map(|(registry, requirement)| PackageRequest {
            registry,
            requirement,
            constraints: what.constraint,
        }),
        restart_policy: what.restart.map(Into::into),
        sharing: what.shared.then_some(SharingName::Shared),
        run_as_root: what.root.then_some(true),
        environment: (!what.env.is_empty()).then(|| what.env.into_iter().collect()),
        volumes: (!volumes.is_empty()).then_some(volumes),
        resource_limits: (limits != RequestedLimits::default()).then_some(limits),
        network: what.network.map(Into::into),
        call_timeout_ms: what.timeout.map(|seconds| seconds * 1000),
    })
}
