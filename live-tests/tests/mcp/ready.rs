//! The state `running`: a hosted server has it once its program has answered; a program that has not is tried again.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server,
    mcp::{SERVERS, Session, await_server, host, show, start, text, tool},
    server::program,
};
use serde_json::{Value, json};

/// The time that events without a request may take on a busy machine.
const BY_ITSELF: Duration = Duration::from_secs(90);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::a_program_that_ends_at_once_never_runs", ends_at_once),
        Case::new("mcp::a_server_that_fails_at_first_runs_without_a_call", fails_at_first),
        Case::new("mcp::an_http_server_runs_once_it_listens", http_server),
        Case::new("mcp::a_changed_timeout_makes_nothing_anew", changed_timeout),
        Case::new("mcp::a_server_that_answers_others_is_not_unresponsive", answers_others),
        Case::new("mcp::several_deaths_at_once_are_one_crash", several_deaths),
        Case::new("mcp::the_command_line_tells_why_a_server_does_not_run", command_line),
    ]
}

async fn ends_at_once(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let body = json!({ "name": "fixture", "network": "none", "cmd": ["sh", "-c", "echo no such module >&2; exit 3"] });
    let made = server.api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "failing", "{made}");
    let message = made["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("exited with 3 before it was ready; next try in "), "{made}");
    ensure!(made["last_exit"]["exit_code"] == 3 && made["last_exit"]["stderr"] == "no such module\n", "{made}");
    tool(&server.api, "count", json!({})).await?.refusal(503)?;
    // It is tried again by itself, and is never said to run.
    await_server(&server.api, "it is tried again", BY_ITSELF, |it| {
        assert_ne!(it["state"], "running", "{it}");
        it["restarts"].as_u64() >= Some(3) && it["state"] == "failing"
    })
    .await?;
    let request = server.api.request(reqwest::Method::PATCH, &format!("{SERVERS}/fixture"));
    let changed = server.api.send(request.json(&json!({ "cmd": ["fixture"] }))).await?.success()?;
    ensure!(changed["state"] == "running" && changed["message"].is_null(), "{changed}");
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    Ok(())
}

async fn fails_at_first(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let script = "echo >> /workspace/starts; [ $(wc -l < /workspace/starts) -gt 4 ] || exit 1; exec fixture";
    let body = json!({ "name": "fixture", "network": "none", "cmd": ["sh", "-c", script] });
    let made = server.api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "failing", "{made}");
    await_server(&server.api, "it runs by itself", BY_ITSELF, |it| it["state"] == "running" && it["processes"] == 1)
        .await?;
    Ok(())
}

async fn http_server(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let script = "import http.server, time; time.sleep(2); http.server.HTTPServer(('127.0.0.1', 9000), \
                  http.server.SimpleHTTPRequestHandler).serve_forever()";
    let good = json!(["python3", "-c", script]);
    let mut body = json!({ "name": "fixture", "network": "none", "stdio_bridge": false, "port": 9000, "cmd": good });
    let made = server.api.post(SERVERS, body.clone()).await?.success()?;
    ensure!(made["state"] == "running", "{made}");
    let reached = server.api.request(reqwest::Method::GET, &format!("{SERVERS}/fixture/mcp")).send().await?;
    ensure!(!reached.status().is_server_error() || reached.status() == 501, "{}", reached.status());
    server.api.delete(&format!("{SERVERS}/fixture")).await?.success()?;
    body["cmd"] = json!(["sh", "-c", "echo cannot listen >&2; exit 4"]);
    let made = server.api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "failing" && made["last_exit"]["exit_code"] == 4, "{made}");
    Ok(())
}

async fn changed_timeout(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let id = host(&server.api, json!({})).await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    let container = server.engine.inspect(&id).await?.id;
    let change = json!({ "call_timeout_ms": 700, "restart_policy": "on-failure" });
    let request = server.api.request(reqwest::Method::PATCH, &format!("{SERVERS}/fixture")).json(&change);
    let changed = server.api.send(request).await?.success()?;
    ensure!(changed["call_timeout_ms"] == 700 && changed["state"] == "running", "{changed}");
    ensure!(server.engine.inspect(&id).await?.id == container, "the container was made anew");
    ensure!(text(&server.api, "count", json!({})).await? == "2", "the process was started anew");
    let call = json!({ "method": "tools/call", "params": { "name": "hang", "arguments": {} } });
    let late = server.api.post(&format!("{SERVERS}/fixture/call"), call).await?.refusal(504)?;
    let detail = late["detail"].as_str().unwrap_or_default();
    for setting in ["0.7 s", "`timeout_ms`", "`call_timeout_ms`", "--timeout"] {
        ensure!(detail.contains(setting), "{setting}: {detail}");
    }
    Ok(())
}

async fn answers_others(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({ "call_timeout_ms": 2_000 })).await?;
    let hang = json!({ "method": "tools/call", "params": { "name": "hang", "arguments": {} } });
    let path = format!("{SERVERS}/fixture/call");
    let mut hanging: Vec<_> = (0..4)
        .map(|_| {
            let (api, path, hang) = (server.api.clone(), path.clone(), hang.clone());
            tokio::spawn(async move { api.post(&path, hang).await?.refusal(504) })
        })
        .collect();
    while hanging.iter().any(|call| !call.is_finished()) {
        text(&server.api, "count", json!({})).await?;
    }
    let shown = show(&server.api).await?;
    ensure!(shown["unresponsive"] == false, "{shown}");
    for call in hanging.drain(..) {
        call.await??;
    }
    Ok(())
}

async fn several_deaths(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let id = host(&server.api, json!({})).await?;
    let path = format!("{SERVERS}/fixture/mcp");
    for _ in 0..4 {
        Session::open(&server.api, &path).await?;
    }
    await_server(&server.api, "all are there", BY_ITSELF, |it| it["processes"] == 5).await?;
    // The oldest ones, one after the other: what is started meanwhile is younger.
    let kill = "for i in 1 2 3 4; do pkill -9 -o -x fixture; sleep 0.7; done";
    let container = format!("emergent-{id}");
    let killed = std::process::Command::new("docker").args(["exec", &container, "sh", "-c", kill]).output()?;
    ensure!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    let after = await_server(&server.api, "the ends are seen", BY_ITSELF, |it| {
        it["last_exit"]["signal"] == 9 && it["sessions"].as_u64() <= Some(1)
    })
    .await?;
    ensure!(after["state"] == "running" && after["restarts"] == 1, "{after}");
    Ok(())
}

/// Runs the command line as a user does; returns whether it succeeded, and its output.
pub(crate) fn emergent(server: &Server, arguments: &[&str]) -> anyhow::Result<(bool, String, String)> {
    let ended = std::process::Command::new(program("emergent")?)
        .args(arguments)
        .env("EMERGENT_SERVER", server.api.base())
        .env("EMERGENT_TOKEN", server.api.token())
        .output()
        .context("starting the command line")?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((ended.status.success(), text(&ended.stdout), text(&ended.stderr)))
}

async fn command_line(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let run = |arguments: &[&str]| emergent(&server, arguments);
    let broken = "echo first line >&2; echo last words >&2; exit 5";
    let (ok, _, said) = run(&["mcp", "add", "broken", "--network", "none", "--", "sh", "-c", broken])?;
    ensure!(!ok && said.contains("broken is failing (exited with 5 before it was ready; next try in "), "{said}");
    ensure!(said.contains("first line\n") && said.contains("last words\n"), "{said}");
    let (ok, listed, _) = run(&["mcp", "ls"])?;
    ensure!(ok && listed.contains("exited with 5 before it was ready"), "{listed}");
    let (ok, listed, _) = run(&["mcp", "add", "soon", "--no-wait", "--network", "none", "--", "fixture"])?;
    ensure!(ok, "{listed}");
    let (ok, updated, said) = run(&["mcp", "update", "broken", "--timeout", "7", "--", "fixture"])?;
    ensure!(ok && updated.starts_with("broken running "), "{updated}{said}");
    let shown = server.api.get(&format!("{SERVERS}/broken")).await?.success()?;
    ensure!(shown["call_timeout_ms"] == 7_000, "{shown}");

    let (ok, out, _) = run(&["mcp", "call", "broken", "echo", r#"{"text":"for people"}"#])?;
    ensure!(ok && out == "for people\n", "{out}");
    let (ok, out, _) = run(&["mcp", "call", "broken", "echo", r#"{"text":"for programs"}"#, "--json"])?;
    let whole: Value = serde_json::from_str(&out)?;
    ensure!(ok && whole["content"][0]["text"] == "for programs", "{out}");
    let (ok, out, said) = run(&["mcp", "call", "broken", "test_error_handling"])?;
    ensure!(!ok && out.is_empty() && said.starts_with("error: "), "{out}{said}");
    let (ok, _, said) = run(&["mcp", "call", "broken", "hang", "--timeout", "1"])?;
    ensure!(!ok && said.contains("--timeout SECONDS"), "{said}");

    let (ok, removed, said) = run(&["mcp", "rm", "broken", "soon"])?;
    ensure!(ok && removed == "broken removed\nsoon removed\n", "{removed}{said}");
    ensure!(server.api.list(SERVERS).await?.is_empty());
    Ok(())
}
