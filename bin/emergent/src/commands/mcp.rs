//! `emergent mcp …`.

mod connect;

use emergent_api::resources::{
    mcp_servers::{
        request::{McpCall, McpServerRequest, PackageRequest, RegistryName},
        view::{McpAnswer, McpLogs, McpServerList, McpServerView, McpState},
    },
    workspaces::request::RequestedLimits,
};
use reqwest::Method;
use serde_json::value::RawValue;

use crate::{
    cli::{McpAddArgs, McpCommand, WithServer},
    client::{Client, ClientError},
    commands::{
        ended,
        workspace::{find, report},
    },
    exit::ExitStatus,
    print,
};

const SERVERS: &str = "/api/v1/mcp/servers";

/// Does it.
pub(super) async fn run(arguments: WithServer<McpCommand>) -> ExitStatus {
    let json = arguments.client.json;
    let client = match Client::new(&arguments.client) {
        Ok(client) => client,
        Err(error) => return ended(Err(error)),
    };
    match arguments.command {
        McpCommand::Add(new) => ended(add(&client, new, json).await),
        McpCommand::Ls => ended(ls(&client, json).await),
        McpCommand::Show { name } => ended(show(&client, client.address(), &name, json).await),
        McpCommand::Call { name, method, params, timeout } => call(&client, &name, &method, &params, timeout).await,
        McpCommand::Connect { name, workspace } => ended(connect_to(client, name, workspace).await),
        McpCommand::Logs { name } => ended(logs(&client, &name, json).await),
        McpCommand::Restart { name } => ended(restart(&client, &name, json).await),
        McpCommand::Rm { servers } => remove(&client, &servers, json).await,
    }
}

async fn connect_to(client: Client, name: Option<String>, workspace: Option<String>) -> Result<(), ClientError> {
    let path = match (name, workspace) {
        (Some(name), _) => path(&name, "/mcp"),
        (None, workspace) => {
            let workspace = find::workspace(&client, &workspace.unwrap_or_default()).await?;
            format!("/api/v1/agent/workspaces/{workspace}/mcp")
        }
    };
    connect::connect(client, path).await
}

async fn add(client: &Client, new: McpAddArgs, json: bool) -> Result<(), ClientError> {
    let sharing = new.sharing();
    let package = match (new.npm, new.pypi) {
        (Some(npm), _) => Some((RegistryName::Npm, npm)),
        (None, pypi) => pypi.map(|pypi| (RegistryName::Pypi, pypi)),
    };
    let limits = RequestedLimits { cpu: new.cpu, memory: new.memory, disk: new.disk, ..RequestedLimits::default() };
    let body = McpServerRequest {
        name: Some(new.name),
        image: new.image,
        cmd: (!new.command.is_empty()).then_some(new.command),
        stdio_bridge: new.port.map(|_| false),
        port: new.port,
        path: new.path,
        package: package.map(|(registry, requirement)| PackageRequest {
            registry,
            requirement,
            constraints: new.constraint,
        }),
        restart_policy: new.restart.map(Into::into),
        sharing,
        run_as_root: new.root.then_some(true),
        environment: (!new.env.is_empty()).then(|| new.env.into_iter().collect()),
        volumes: (!new.volume.is_empty()).then(|| new.volume.into_iter().collect()),
        resource_limits: Some(limits),
        network: new.network.map(Into::into),
        ..McpServerRequest::default()
    };
    let request = client.request(Method::POST, SERVERS)?.query(&[("wait_seconds", new.wait)]).json(&body);
    let progress = print::spinner("starting the server");
    let made = client.answer::<McpServerView>(request).await;
    progress.finish_and_clear();
    told(&made?, json);
    Ok(())
}

async fn ls(client: &Client, json: bool) -> Result<(), ClientError> {
    let list: McpServerList = client.get(SERVERS).await?;
    if json {
        print::json(&list);
        return Ok(());
    }
    print::table(
        ["name", "state", "runs", "restarts", "sessions", "processes", "era"],
        list.items.iter().map(|server| {
            [
                server.name.clone(),
                word(server).to_owned(),
                server.package.as_ref().map_or_else(|| server.image.clone(), |package| package.requirement.clone()),
                server.restarts.to_string(),
                server.sessions.to_string(),
                server.processes.to_string(),
                server.era.clone().unwrap_or_default(),
            ]
        }),
    );
    Ok(())
}

async fn show(client: &Client, base: &str, name: &str, json: bool) -> Result<(), ClientError> {
    let server: McpServerView = client.get(&path(name, "")).await?;
    if json {
        print::json(&server);
        return Ok(());
    }
    let base = base.trim_end_matches('/');
    let entry = serde_json::json!({ "mcpServers": { server.name.as_str(): {
        "type": "http",
        "url": format!("{base}{}", server.endpoint),
        "headers": { "Authorization": "Bearer <token>" },
    } } });
    print::json(&server);
    print::line("\nFor clients that take JSON, with a token of the scope mcp:use (`emergent token create`):\n");
    print::json(&entry);
    Ok(())
}

/// A name with a slash is a method; any other is a tool's.
async fn call(client: &Client, server: &str, method: &str, params: &str, timeout: Option<u64>) -> ExitStatus {
    let called = async {
        let is_method = method.contains('/') || method == "ping";
        let (method, params) = if is_method {
            (method.to_owned(), params.to_owned())
        } else {
            let name = serde_json::Value::from(method);
            ("tools/call".to_owned(), format!(r#"{{"name":{name},"arguments":{params}}}"#))
        };
        let params = RawValue::from_string(params).map_err(ClientError::BadParameters)?;
        let body = McpCall { method, params: Some(params), timeout_ms: timeout.map(|seconds| seconds * 1000) };
        client.answer::<McpAnswer>(client.request(Method::POST, &path(server, "/call"))?.json(&body)).await
    };
    match called.await {
        Ok(McpAnswer { error: Some(error), .. }) => {
            print::error(&format!("the server answered with error {}: {}", error.code, error.message));
            ExitStatus::Failure
        }
        Ok(McpAnswer { result, .. }) => {
            print::json(&result);
            ExitStatus::Success
        }
        Err(error) => ended(Err(error)),
    }
}

async fn logs(client: &Client, server: &str, json: bool) -> Result<(), ClientError> {
    let logs: McpLogs = client.get(&path(server, "/logs")).await?;
    if json {
        print::json(&logs);
        return Ok(());
    }
    for log in &logs.processes {
        print::notice(&format!("process {}\n", log.process));
        print::out(&log.stderr);
    }
    if let Some(exit) = &logs.last_exit {
        let how = match (exit.exit_code, exit.signal, &exit.reason) {
            (_, _, Some(reason)) => reason.clone(),
            (_, Some(signal), None) => format!("signal {signal}"),
            (code, None, None) => {
                format!("exit code {}", code.map_or_else(|| "unknown".to_owned(), |code| code.to_string()))
            }
        };
        print::notice(&format!("last ended at {}: {how}\n", exit.at));
        print::out(&exit.stderr);
    }
    Ok(())
}

async fn restart(client: &Client, server: &str, json: bool) -> Result<(), ClientError> {
    let progress = print::spinner("restarting");
    let restarted = client.answer::<McpServerView>(client.request(Method::POST, &path(server, "/restart"))?).await;
    progress.finish_and_clear();
    told(&restarted?, json);
    Ok(())
}

/// Deletes servers; one that fails does not keep the others from it.
async fn remove(client: &Client, which: &[String], json: bool) -> ExitStatus {
    let progress = print::spinner("deleting");
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for name in which {
        match client.delete(&path(name, "")).await {
            Ok(()) => done.push(name),
            Err(error) => failed.push(error),
        }
    }
    progress.finish_and_clear();
    if json {
        print::json(&serde_json::json!({ "removed": done }));
    } else {
        done.iter().for_each(|name| print::line(&format!("{name} removed")));
    }
    report(failed.into_iter())
}

fn told(server: &McpServerView, json: bool) {
    if json {
        return print::json(server);
    }
    if let Some(message) = &server.message {
        print::notice(&format!("{message}\n"));
    }
    print::line(&format!("{} {} {}", server.name, word(server), server.endpoint));
}

fn word(server: &McpServerView) -> &'static str {
    match server.state {
        McpState::Running if server.unresponsive => "unresponsive",
        McpState::Starting => "starting",
        McpState::Running => "running",
        McpState::BackingOff => "backing_off",
        McpState::Stopped => "stopped",
        McpState::Failed => "failed",
        McpState::Deleting => "deleting",
    }
}

/// Where a server is. What a person has typed is made one segment of the path.
fn path(server: &str, rest: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let segment: String = server.bytes().map(escape).collect();
    format!("{SERVERS}/{segment}{rest}")
}
