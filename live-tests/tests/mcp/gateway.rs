//! `/mcp`: one endpoint for all hosted servers, and tokens that may use some of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime,
    mcp::{SERVERS, Session, host, post, start, text, user},
    until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const GATEWAY: &str = "/mcp";
/// How many servers an agent may well have.
const MANY: usize = 15;
/// How long their case may take: each has a sandbox.
const MANY_WITHIN: Duration = Duration::from_secs(500);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::one_endpoint_has_the_tools_of_all_servers_that_run", one_endpoint),
        Case::new("mcp::what_many_servers_were_found_to_offer_is_listed_without_asking_them", known_offers)
            .within(MANY_WITHIN),
        Case::new("mcp::a_token_may_be_limited_to_servers_and_to_tools", limited),
        Case::new("mcp::a_lenient_server_runs_nothing_that_a_token_may_not_use", lenient),
    ]
}

/// Messages that one reader takes for calls of `echo`, or for nothing, and another for calls of `count`.
fn double_tongued(prefix: &str) -> Vec<String> {
    let (echo, count) = (format!("{prefix}echo"), format!("{prefix}count"));
    let call = |id: &str| format!(r#"{{"jsonrpc":"2.0",{id}"method":"tools/call","params":{{"name":"{count}"}}}}"#);
    let named = |names: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{{names},"arguments":{{"text":"hi"}}}}}}"#)
    };
    vec![
        named(&format!(r#""name":"{echo}","Name":"{count}""#)),
        named(&format!(r#""Name":"count","name":"{echo}""#)),
        named(&format!(r#""name":"{echo}","name":"{count}""#)),
        format!(r#"{{"jsonrpc":"2.0","id":9,"method":"ping","Method":"tools/call","Params":{{"name":"{count}"}}}}"#),
        call(""),
        call(r#""id":null,"#),
        call(r#""ID":7,"#),
    ]
}

async fn lenient(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({ "cmd": ["fixture", "--lenient"], "sharing": "shared" })).await?;
    let some = user(&server.api, &["fixture__echo"]).await?;
    let endpoint = format!("{SERVERS}/fixture/mcp");
    for (path, prefix) in [(endpoint.as_str(), ""), (GATEWAY, "fixture__")] {
        let session = Session::open(&some, path).await?;
        ensure!(session.text(&format!("{prefix}echo"), json!({ "text": "hi" })).await? == "hi");
        for message in double_tongued(prefix) {
            let request = post(&some, path, &json!({})).header("mcp-session-id", &session.id);
            let answer = request.body(message.clone()).send().await?;
            let status = answer.status();
            ensure!(path == GATEWAY || status == 403, "{status} for {message}");
            // Whatever it is, it is read to its end.
            answer.text().await?;
        }
    }
    for names in [r#""name":"echo","Name":"count""#, r#""Name":"count","name":"echo""#] {
        let request = some.request(reqwest::Method::POST, &format!("{SERVERS}/fixture/call"));
        let body = format!(r#"{{"method":"tools/call","params":{{{names}}}}}"#);
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        ensure!(answer.status() == 403, "{} for {names}", answer.status());
    }
    let calls = text(&server.api, "count", json!({})).await?;
    ensure!(calls == "1", "the tool that the token may not use was called {calls} times");
    Ok(())
}

fn starts(tools: &[String], prefix: &str) -> bool {
    tools.iter().any(|tool| tool.starts_with(prefix))
}

async fn one_endpoint(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    host(&server.api, json!({ "name": "second", "cmd": ["fixture", "--only-legacy"] })).await?;
    let stranger = post(&server.api.with_token("nobody"), GATEWAY, &json!({})).send().await?;
    ensure!(stranger.status() == 401 && stranger.headers().contains_key("www-authenticate"), "{}", stranger.status());

    let session = Session::open(&server.api, GATEWAY).await?;
    let tools = session.tools().await?;
    ensure!(starts(&tools, "fixture__") && starts(&tools, "second__"), "{tools:?}");
    ensure!(session.text("fixture__count", json!({})).await? == "1");
    ensure!(session.text("fixture__count", json!({})).await? == "2");
    ensure!(session.text("second__count", json!({})).await? == "1");

    // Clients of the newer era reach both, too.
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    for tool in ["fixture__echo", "second__echo"] {
        let call = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call",
            "params": { "name": tool, "arguments": { "text": "hi" }, "_meta": meta } });
        let request = post(&server.api, GATEWAY, &call).header("mcp-protocol-version", "2026-07-28");
        let answer = request.header("mcp-method", "tools/call").header("mcp-name", tool).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["result"]["content"][0]["text"] == "hi", "{answer}");
    }

    // One that does not run hides no other, and says so itself.
    let stop = json!({ "restart_policy": "never" });
    let change = server.api.request(reqwest::Method::PATCH, &format!("{SERVERS}/second")).json(&stop);
    server.api.send(change).await?.success()?;
    let exit = json!({ "method": "tools/call", "params": { "name": "exit", "arguments": { "code": 3 } } });
    server.api.post(&format!("{SERVERS}/second/call"), exit).await?.refusal(502)?;
    until("the list is without it", Duration::from_secs(20), || async {
        let tools = session.tools().await?;
        let right = starts(&tools, "fixture__") && !starts(&tools, "second__");
        Ok(if right { Ok(()) } else { Err(format!("{tools:?}")) })
    })
    .await?;
    let refused = session.ask("tools/call", json!({ "name": "second__count", "arguments": {} })).await?;
    ensure!(refused["error"]["code"] == -32603 && refused.to_string().contains("restart policy"), "{refused}");
    server.api.post(&format!("{SERVERS}/second/restart"), json!({})).await?.success()?;
    ensure!(session.text("second__count", json!({})).await? == "1");
    ensure!(session.text("fixture__count", json!({})).await? == "3");
    for name in ["fixture", "second"] {
        server.api.delete(&format!("{SERVERS}/{name}")).await?.refusal(204)?;
    }
    ensure!(session.tools().await?.is_empty());
    server.await_nothing_left().await
}

async fn known_offers(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let names: Vec<String> = (1..=MANY).map(|number| format!("server-{number:02}")).collect();
    let mut ids = Vec::new();
    for name in &names {
        ids.push(host(&server.api, json!({ "name": name })).await?);
    }
    let has_all = |tools: &[String]| names.iter().all(|name| starts(tools, &format!("{name}__")));
    let first = Session::open(&server.api, GATEWAY).await?;
    until("the tools of all are known", Duration::from_secs(60), || async {
        let tools = first.tools().await?;
        Ok(if has_all(&tools) { Ok(()) } else { Err(format!("{tools:?}")) })
    })
    .await?;

    // None of them can start a process or answer a question any more.
    let mut guests = Vec::new();
    for id in &ids {
        let pid = server.engine.inspect(id).await?.state.and_then(|state| state.pid).context("no process")?;
        guests.push(Pid::from_raw(i32::try_from(pid)?).context("no process")?);
    }
    let another = user(&server.api, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    guests.iter().try_for_each(|guest| kill_process(*guest, Signal::STOP))?;
    let tools = async { Session::open(&another, GATEWAY).await?.tools().await }.await;
    guests.iter().try_for_each(|guest| kill_process(*guest, Signal::CONT))?;
    let tools = tools?;
    ensure!(has_all(&tools), "{tools:?}");
    Ok(())
}

async fn limited(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    host(&server.api, json!({ "name": "second" })).await?;
    let other = user(&server.api, &["second"]).await?;
    let some = user(&server.api, &["fixture__echo", "second"]).await?;

    // One that a token may not use is as good as not there.
    let call = |tool: &str| json!({ "method": "tools/call", "params": { "name": tool, "arguments": {} } });
    for refused in [
        other.post(&format!("{SERVERS}/fixture/call"), call("echo")).await?,
        other.post(&format!("{SERVERS}/fixture/mcp"), json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await?,
    ] {
        let problem = refused.refusal(404)?;
        ensure!(problem["type"] == "/problems/mcp-server-not-found", "{problem}");
    }
    other.post(&format!("{SERVERS}/second/call"), call("count")).await?.success()?;
    let tools = Session::open(&other, GATEWAY).await?.tools().await?;
    ensure!(!tools.is_empty() && !starts(&tools, "fixture__"), "{tools:?}");

    // Of one that it may use in part, that part.
    some.post(&format!("{SERVERS}/fixture/call"), call("echo")).await?.success()?;
    let list = json!({ "method": "resources/list" });
    for body in [call("count"), list] {
        let problem = some.post(&format!("{SERVERS}/fixture/call"), body).await?.refusal(403)?;
        ensure!(problem["type"] == "/problems/mcp-tool-not-allowed", "{problem}");
    }
    let session = Session::open(&some, &format!("{SERVERS}/fixture/mcp")).await?;
    ensure!(session.text("echo", json!({ "text": "hi" })).await? == "hi");
    let refused = session.send("tools/call", &json!({ "name": "count", "arguments": {} })).await?;
    ensure!(refused.status() == 403, "{}", refused.status());
    let gateway = Session::open(&some, GATEWAY).await?;
    let tools = gateway.tools().await?;
    let of_first: Vec<_> = tools.iter().filter(|tool| tool.starts_with("fixture__")).collect();
    ensure!(of_first == ["fixture__echo"] && starts(&tools, "second__count"), "{tools:?}");
    let refused = gateway.ask("tools/call", json!({ "name": "fixture__count", "arguments": {} })).await?;
    ensure!(refused["error"]["code"] == -32602, "{refused}");
    ensure!(gateway.text("second__count", json!({})).await? == "1");

    let wrong = json!({ "name": "x", "scopes": ["mcp:use"], "mcp_servers": ["No such name"] });
    server.api.post("/api/v1/tokens", wrong).await?.refusal(422)?;
    let pointless = json!({ "name": "x", "scopes": ["admin:write"], "mcp_servers": ["fixture"] });
    server.api.post("/api/v1/tokens", pointless).await?.refusal(422)?;
    Ok(())
}
