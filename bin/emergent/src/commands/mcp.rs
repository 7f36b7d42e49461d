//! `emergent mcp …`.

mod call;
mod connect;
mod spec;

use emergent_api::resources::mcp_servers::view::{McpExit, McpLogs, McpServerList, McpServerView, McpState};
use futures::{StreamExt as _, stream};
use reqwest::Method;

use crate::{
    cli::{McpCommand, WithServer},
    client::{Client, ClientError},
    commands::{
        ended,
        mcp_paths::{SERVERS, path},
        workspace::{
            copy::{self, Side},
            find, report,
        },
    },
    exit::ExitStatus,
    print,
};

/// The number of servers that are deleted side by side.
const TOGETHER: usize = 8;
/// The number of characters of a server's message that fit into a table.
const CELL: usize = 60;
/// The number of last lines that are shown of a program that does not run.
const LAST_LINES: usize = 20;

/// Does it.
pub(super) async fn run(arguments: WithServer<McpCommand>) -> ExitStatus {
    let json = arguments.client.json;
    let client = match Client::new(&arguments.client) {
        Ok(client) => client,
        Err(error) => return ended(Err(error)),
    };
    match arguments.command {
        McpCommand::Add(new) => finished(spec::add(&client, new, json).await),
        McpCommand::Update(change) => finished(spec::update(&client, change, json).await),
        McpCommand::Ls => ended(ls(&client, json).await),
        McpCommand::Show { name } => ended(show(&client, client.address(), &name, json).await),
        McpCommand::Call { name, method, params, timeout } => {
            finished(call::call(&client, &name, (&method, &params), timeout, json).await)
        }
        McpCommand::Cp { from, to } => ended(copy::run(&client, Side::McpServer, &from, &to).await),
        McpCommand::Connect { name, workspace } => ended(connect_to(client, name, workspace).await),
        McpCommand::Logs { name } => ended(logs(&client, &name, json).await),
        McpCommand::Restart { name } => finished(restart(&client, &name, json).await),
        McpCommand::Rm { servers } => remove(&client, &servers, json).await,
    }
}

/// Shows a failure; otherwise the command has said how it ended.
fn finished(result: Result<ExitStatus, ClientError>) -> ExitStatus {
    result.unwrap_or_else(|error| ended(Err(error)))
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
                short(server),
                server.package.as_ref().map_or_else(|| server.image.clone(), |package| package.requirement.clone()),
                server.restarts.to_string(),
                server.sessions.to_string(),
                server.processes.to_string(),
                server.era.clone().unwrap_or_default(),
            ]
        }),
    );
    if let Some(server) = list.items.iter().find(|server| short(server) != sentence(server)) {
        print::notice(&format!("`emergent mcp logs {}` shows all of what it says\n", server.name));
    }
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

async fn logs(client: &Client, server: &str, json: bool) -> Result<(), ClientError> {
    let logs: McpLogs = client.get(&path(server, "/logs")).await?;
    if json {
        print::json(&logs);
        return Ok(());
    }
    if let Some(message) = &logs.message {
        print::line(&print::foreign(message));
    }
    for log in &logs.processes {
        print::notice(&format!("process {}\n", log.process));
        print::out(&print::foreign(&log.stderr));
    }
    if let Some(exit) = &logs.last_exit {
        print::notice(&format!("last ended at {}: {}\n", exit.at, how(exit)));
        print::out(&print::foreign(&exit.stderr));
    }
    Ok(())
}

fn how(exit: &McpExit) -> String {
    match (exit.exit_code, exit.signal, &exit.reason) {
        (_, _, Some(reason)) => print::foreign(reason),
        (_, Some(signal), None) => format!("signal {signal}"),
        (Some(code), None, None) => format!("exit code {code}"),
        (None, None, None) => "exit code unknown".to_owned(),
    }
}

async fn restart(client: &Client, server: &str, json: bool) -> Result<ExitStatus, ClientError> {
    let progress = print::spinner("restarting");
    let restarted = client.answer::<McpServerView>(client.request(Method::POST, &path(server, "/restart"))?).await;
    progress.finish_and_clear();
    Ok(runs(&restarted?, json))
}

/// Deletes servers side by side; one that fails does not keep the others from it.
async fn remove(client: &Client, which: &[String], json: bool) -> ExitStatus {
    let progress = print::spinner("deleting");
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut removals =
        stream::iter(which).map(|name| async move { (name, client.delete(&path(name, "")).await) }).buffered(TOGETHER);
    while let Some((name, removed)) = removals.next().await {
        match removed {
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

/// Shows a server that was to run, and why it does not if that is so.
fn runs(server: &McpServerView, json: bool) -> ExitStatus {
    if server.state == McpState::Running {
        told(server, json);
        return ExitStatus::Success;
    }
    if json {
        print::json(server);
    }
    let name = &server.name;
    print::error(&format!("{name} is {}", sentence(server)));
    let program_ended = matches!(server.state, McpState::Failing | McpState::BackingOff | McpState::Stopped);
    if let Some(exit) = server.last_exit.as_ref().filter(|exit| program_ended && !exit.stderr.trim().is_empty()) {
        let lines: Vec<&str> = exit.stderr.trim_end().lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n");
        print::notice(&format!("what it has said last:\n  {}\n", print::indented(&last)));
    }
    print::notice(&format!(
        "it stays registered: `emergent mcp logs {name}` shows more, `emergent mcp update {name}` changes it, `emergent \
         mcp rm {name}` removes it\n"
    ));
    ExitStatus::Failure
}

fn told(server: &McpServerView, json: bool) {
    if json {
        return print::json(server);
    }
    if let Some(message) = &server.message {
        print::notice(&format!("{}\n", print::foreign(message)));
    }
    print::line(&format!("{} {} {}", server.name, word(server), server.endpoint));
}

/// The state, and what is to be said of it.
fn sentence(server: &McpServerView) -> String {
    match &server.message {
        Some(message) => format!("{} ({})", word(server), print::indented(message)),
        None => word(server).to_owned(),
    }
}

/// The state, and the beginning of what is to be said of it: a cell of a table.
fn short(server: &McpServerView) -> String {
    let Some(message) = &server.message else { return word(server).to_owned() };
    let line = message.lines().next().unwrap_or_default().trim_end_matches([':', ' ']);
    let begun: String = line.chars().take(CELL).collect();
    let cut = if begun.len() < message.len() { "…" } else { "" };
    format!("{} ({}{cut})", word(server), print::foreign(&begun))
}

fn word(server: &McpServerView) -> &'static str {
    match server.state {
        McpState::Running if server.unresponsive => "unresponsive",
        McpState::Starting => "starting",
        McpState::Running => "running",
        McpState::Failing => "failing",
        McpState::BackingOff => "backing_off",
        McpState::Stopped => "stopped",
        McpState::Failed => "failed",
        McpState::Deleting => "deleting",
    }
}
