//! Commands, and the API's reports of them, while they run and afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("bash_tells_all_that_happened", bash_tells_all_that_happened),
        Case::new("programs_of_the_image_can_look_at_files", programs_can_look_at_files),
        Case::new("variables_beyond_the_kernels_limit_are_refused", variables_beyond_the_limit),
        Case::new("output_is_told_as_it_comes", output_is_told_as_it_comes),
        Case::new("a_timeout_ends_the_whole_tree", a_timeout_ends_the_whole_tree),
        Case::new("a_server_left_running_holds_nothing_up", a_server_left_running_holds_nothing_up),
        Case::new("long_output_is_cut_and_kept", long_output_is_cut_and_kept),
        Case::new("commands_are_an_agents_and_roots_where_that_is_allowed", agents_and_roots),
    ]
}

async fn bash_tells_all_that_happened(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::with(runtime, json!({ "environment": { "PLACE": "here" } })).await?;
    let command = json!({
        "command": "pwd; id -u; echo $GREETING $PLACE; echo oops >&2; exit 7",
        "workdir": "/tmp",
        "env": { "GREETING": "grüße" },
    });
    for name in ["bash", "exec"] {
        let result = subject.tool(name, command.clone()).await?.success()?;
        ensure!(result["stdout"] == "/tmp\n1000\ngrüße here\n", "{result}");
        ensure!(result["stderr"] == "oops\n" && result["exit_code"] == 7, "{result}");
        ensure!(result["timed_out"] == false && result["truncated"] == false, "{result}");
        ensure!(result["outcome"] == "exited" && result["duration_ms"].is_u64(), "{result}");
    }
    let ended = subject.tool("bash", json!({ "command": "kill -9 $$" })).await?.success()?;
    ensure!(ended["exit_code"] == 137 && ended["signal"] == "SIGKILL", "{ended}");
    subject.tool("bash", json!({ "command": "true", "workdir": "/nowhere" })).await?.refusal(404)?;
    subject.tool("bash", json!({ "command": "true", "timeout_ms": -1 })).await?.refusal(422)?;
    Ok(())
}

/// Programs such as GNU `ls` and `stat` can look at files; old releases of gVisor refuse their system calls.
async fn programs_can_look_at_files(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let listing = subject.bash("echo text > f; ls -la; ls -l f; stat -c '%s %n' f; find f -ls").await?;
    ensure!(listing.contains("5 f\n") && listing.matches(" f\n").count() == 4, "{listing}");
    let missing = subject.tool("bash", json!({ "command": "ls -l absent" })).await?.success()?;
    ensure!(missing["stderr"].as_str().is_some_and(|said| said.contains("No such file")), "{missing}");
    // Also in what is no child of a shell, and with a clean environment apart from the library.
    let started =
        subject.post("processes", json!({ "argv": ["stat", "-c", "%s", "f"], "execution_id": "stat" })).await?;
    started.success()?;
    let ended = subject.get("processes/stat/wait").await?.success()?;
    ensure!(ended["stdout"] == "5\n" && ended["stderr"] == "", "{ended}");
    Ok(())
}

async fn variables_beyond_the_limit(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let with = |count: usize| {
        let env: serde_json::Map<_, _> = (0..count).map(|n| (format!("V{n}"), json!("x".repeat(100_000)))).collect();
        subject.tool("bash", json!({ "command": "env | wc -c", "env": env }))
    };
    let result = with(18).await?.success()?;
    let length = result["stdout"].as_str().and_then(|length| length.trim().parse::<usize>().ok());
    ensure!(length.is_some_and(|length| length > 1_800_000), "{result}");
    let refused = with(70).await?.refusal(422)?;
    ensure!(refused["type"] == "/problems/arguments-too-long", "{refused}");
    Ok(())
}

async fn output_is_told_as_it_comes(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    // It ends only once somebody has seen what it said first.
    let command = "echo first; until [ -e seen ]; do sleep 0.05; done; echo oops >&2; exit 3";
    let request = subject.request(Method::POST, "bash").header("Accept", "text/event-stream");
    let mut response = request.json(&json!({ "command": command })).send().await?.error_for_status()?;
    let mut told = String::new();
    while !told.contains("first") {
        told.push_str(std::str::from_utf8(&response.chunk().await?.context("it ended before it was seen")?)?);
    }
    subject.tool("write", json!({ "file_path": "seen", "content": "" })).await?.success()?;
    while let Some(chunk) = response.chunk().await? {
        told.push_str(std::str::from_utf8(&chunk)?);
    }
    let events: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("event:")).map(str::trim).collect();
    ensure!(events == ["execution", "stdout", "stderr", "result"], "{told}");
    let result = told.lines().rev().find_map(|line| line.strip_prefix("data:")).context("no data")?;
    let result: Value = serde_json::from_str(result.trim())?;
    ensure!(result["exit_code"] == 3 && result["stdout_bytes"] == 6, "{result}");
    Ok(())
}

async fn a_timeout_ends_the_whole_tree(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & \
        env -i setsid sleep 4321 & echo started; while :; do sleep 1; done";
    let result = subject.tool("bash", json!({ "command": stubborn, "timeout_ms": 1000 })).await?.success()?;
    ensure!(result["timed_out"] == true && result["stdout"] == "started\n", "{result}");
    let left = subject.bash("cat /proc/[0-9]*/comm | sort").await?;
    ensure!(!left.lines().any(|name| name == "setsid" || name == "sleep"), "left running: {left}");
    Ok(())
}

async fn a_server_left_running_holds_nothing_up(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let started = Instant::now();
    ensure!(subject.bash("python3 -m http.server 8000 & echo up").await? == "up\n");
    ensure!(started.elapsed() < Duration::from_secs(10), "the call waited for the background process");
    until("the server left running answers", Duration::from_secs(20), || async {
        let fetched = json!({ "command": "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/" });
        let result = subject.tool("bash", fetched).await?.success()?;
        Ok(if result["stdout"] == "200" { Ok(()) } else { Err(result.to_string()) })
    })
    .await
}

async fn long_output_is_cut_and_kept(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let result = subject.tool("bash", json!({ "command": "seq 100000" })).await?.success()?;
    let shown = result["stdout"].as_str().context("no stdout")?;
    ensure!(result["truncated"] == true && shown.len() < 60_000, "{} bytes shown", shown.len());
    ensure!(shown.starts_with("1\n2\n") && shown.ends_with("99999\n100000\n"), "neither head nor tail");
    ensure!(result["stdout_bytes"] == 588_895, "{}", result["stdout_bytes"]);
    let file = result["stdout_file"].as_str().context("no file named")?;
    ensure!(subject.bash(&format!("wc -l < {file}")).await?.trim() == "100000");
    Ok(())
}

async fn agents_and_roots(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let as_root = json!({ "command": "id -u", "user": "root" });
    let refused = subject.tool("bash", as_root.clone()).await?.refusal(403)?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains("allow_root")), "{refused}");

    let subject = Subject::with(runtime, json!({ "allow_root": true })).await?;
    let result = subject.tool("bash", as_root).await?.success()?;
    ensure!(result["stdout"] == "0\n", "{result}");
    ensure!(subject.bash("id -u").await? == "1000\n");
    Ok(())
}
