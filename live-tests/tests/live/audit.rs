//! The audit of calls, the secrets that it must never hold, and the measured use of workspaces.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Api, Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use futures::{StreamExt as _, future::join_all};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const SECRET: &str = "pl4nted-s3cr3t-0f-nobody";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("every_call_leaves_one_row_with_its_outcome", every_call_leaves_one_row_with_its_outcome),
        Case::new("no_secret_is_in_the_database", no_secret_is_in_the_database),
        Case::new("a_server_that_is_stopped_loses_no_row", a_server_that_is_stopped_loses_no_row),
        Case::new("a_quota_holds_under_parallel_creates", a_quota_holds_under_parallel_creates),
        Case::new("use_is_sampled_and_the_disk_is_watched", use_is_sampled_and_the_disk_is_watched),
    ]
}

/// The rows that a query finds, once there are as many as expected.
async fn rows(api: &Api, path: &str, expected: usize) -> anyhow::Result<Vec<Value>> {
    until(&format!("{expected} rows at {path}"), Duration::from_secs(10), || async {
        let listed = api.get(path).await?.success()?;
        let rows = listed["items"].as_array().context("no items")?.clone();
        Ok(if rows.len() == expected { Ok(rows) } else { Err(format!("{}: {rows:?}", rows.len())) })
    })
    .await
}

async fn every_call_leaves_one_row_with_its_outcome(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create(json!({ "network": "none" })).await?;
    let path = format!("{WORKSPACES}/{id}");
    let post = |tool: &str, body: Value| api.request(Method::POST, &format!("{path}/{tool}")).json(&body);
    let get = |call: &str| api.request(Method::GET, &format!("{path}/{call}"));
    let put = |call: &str| api.request(Method::PUT, &format!("{path}/{call}"));
    let calls: Vec<(&str, &str, RequestBuilder)> = vec![
        ("bash", "ok", post("bash", json!({ "command": "exit 3" }))),
        ("exec", "ok", post("exec", json!({ "command": "true" }))),
        ("bash", "timed_out", post("bash", json!({ "command": "sleep 60", "timeout_ms": 200 }))),
        ("bash", "ok", post("bash?stream=true", json!({ "command": "echo streamed" }))),
        ("bash", "timed_out", post("bash?stream=true", json!({ "command": "sleep 60", "timeout_ms": 200 }))),
        ("bash", "refused invalid-value", post("bash", json!({ "command": "" }))),
        ("write", "ok", post("write", json!({ "file_path": "a", "content": "one\n" }))),
        ("read", "ok", post("read", json!({ "file_path": "a" }))),
        ("read", "refused file-not-found", post("read", json!({ "file_path": "b" }))),
        ("edit", "ok", post("edit", json!({ "file_path": "a", "old_string": "one", "new_string": "two" }))),
        (
            "edit",
            "refused string-not-found",
            post("edit", json!({ "file_path": "a", "old_string": "x", "new_string": "y" })),
        ),
        ("glob", "ok", post("glob", json!({ "pattern": "*" }))),
        ("grep", "ok", post("grep", json!({ "pattern": "two" }))),
        ("git", "refused git-failed", post("git", json!({ "action": "status" }))),
        ("upload_file", "ok", put("files/content?path=big").body(vec![7_u8; 1 << 20])),
        ("download_file", "ok", get("files/content?path=big")),
        ("write", "ok", post("write", json!({ "file_path": "empty", "content": "" }))),
        ("download_file", "ok", get("files/content?path=empty")),
        ("download_archive", "ok", get("files/archive?path=.")),
        ("list_files", "ok", get("files/list?path=.")),
        ("stat_file", "ok", get("files/stat?path=a")),
        ("start_process", "ok", post("processes", json!({ "argv": ["sleep", "60"], "execution_id": "one" }))),
        ("list_processes", "ok", get("processes")),
        ("get_process", "refused unknown-execution", get("processes/none")),
        ("cancel_process", "ok", post("processes/one/cancel", json!({}))),
        ("wait_for_process", "ok", get("processes/one/wait")),
        ("process_output", "ok", get("processes/one/output")),
    ];
    let mut expected = BTreeMap::new();
    for (number, (action, outcome, call)) in calls.into_iter().enumerate() {
        let request = format!("call-{number:02}");
        call.header("x-request-id", &request).send().await?.bytes().await?;
        expected.insert(request, format!("{action} {outcome}"));
    }
    // A caller that goes away in the middle of its answer.
    let endless = post("bash?stream=true", json!({ "command": "echo begun; sleep 60", "timeout_ms": 120_000 }));
    let answer = endless.header("x-request-id", "call-gone").send().await?;
    answer.bytes_stream().next().await.context("nothing came")??;
    expected.insert("call-gone".to_owned(), "bash abandoned".to_owned());

    let rows = rows(api, &format!("{path}/audit?kind=tool&limit=200"), expected.len()).await?;
    let told: BTreeMap<_, _> = rows.iter().map(|row| (word(&row["request_id"]), told(row))).collect();
    ensure!(told == expected, "{told:#?}\nexpected {expected:#?}");
    let find = |request: &str| rows.iter().find(|row| row["request_id"] == request).context("no row");
    let (upload, download, timed_out) = (find("call-14")?, find("call-15")?, find("call-02")?);
    ensure!(upload["bytes_in"] == 1 << 20 && download["bytes_out"] == 1 << 20, "{upload} {download}");
    ensure!(timed_out["duration_ms"].as_u64().is_some_and(|ms| ms >= 200), "{timed_out}");
    Ok(())
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn told(row: &Value) -> String {
    let parts = ["action", "outcome", "problem"].map(|field| word(&row[field]));
    parts.join(" ").trim_end().to_owned()
}

async fn no_secret_is_in_the_database(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create(json!({ "network": "none", "environment": { "TOKEN": SECRET } })).await?;
    let path = format!("{WORKSPACES}/{id}");
    ensure!(api.bash(&id, "echo $TOKEN").await?.trim() == SECRET);
    let command = format!("KEY={SECRET} printenv KEY; echo \"{SECRET}\" | tee kept");
    let body = json!({ "command": command, "env": { "OTHER": SECRET } });
    api.tool(&id, "bash", body.clone()).await?.success()?;
    api.post(&format!("{path}/processes"), body).await?.success()?;
    api.tool(&id, "write", json!({ "file_path": "a", "content": SECRET })).await?.success()?;
    api.tool(&id, "read", json!({ "file_path": "a" })).await?.success()?;
    api.tool(&id, "grep", json!({ "pattern": SECRET })).await?.success()?;
    api.tool(&id, "edit", json!({ "file_path": "a", "old_string": SECRET, "new_string": "x" })).await?.success()?;
    let upload = api.request(Method::PUT, &format!("{path}/files/content?path=b")).body(SECRET).send().await?;
    ensure!(upload.status().is_success(), "{}", upload.status());
    rows(api, &format!("{path}/audit?kind=tool"), 8).await?;
    ensure!(!holds(&server.data_dir(), SECRET)?, "the secret is in the server's files");
    server.terminate().await?;
    ensure!(!holds(&server.data_dir(), SECRET)?, "the secret is in the server's files after its end");
    Ok(())
}

/// Whether any file below a directory holds a text.
fn holds(directory: &Path, text: &str) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, text)?
        } else {
            std::fs::read(&path)?.windows(text.len()).any(|window| window == text.as_bytes())
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn a_server_that_is_stopped_loses_no_row(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "network": "none" })).await?;
    server.api.tool(&id, "write", json!({ "file_path": "a", "content": "one" })).await?.success()?;
    let answers = futures::stream::iter(0..500).map(|_| server.api.tool(&id, "read", json!({ "file_path": "a" })));
    let answers: Vec<_> = answers.buffer_unordered(50).collect().await;
    for answer in answers {
        answer?.success()?;
    }
    server.terminate().await?;
    server.restart(|_| {}).await?;
    let mut told = 0;
    let mut cursor = String::new();
    loop {
        let page = format!("{WORKSPACES}/{id}/audit?action=read&outcome=ok&limit=200{cursor}");
        let page = server.api.get(&page).await?.success()?;
        told += page["items"].as_array().context("no items")?.len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    ensure!(told == 500, "{told} of 500 rows");
    Ok(())
}

async fn a_quota_holds_under_parallel_creates(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_MAX_CONCURRENT", "60")).await?;
    let api = &server.api;
    let projects = api.get("/api/v1/projects").await?.success()?;
    let quota = format!("/api/v1/projects/{}/quota", word(&projects["items"][0]["id"]));
    api.send(api.request(Method::PUT, &quota).json(&json!({ "max_active": 2 }))).await?.success()?;
    let create = || api.post(WORKSPACES, json!({ "network": "none" }));
    let (mut made, mut refused) = (Vec::new(), 0);
    for reply in join_all((0..50).map(|_| create())).await {
        let reply = reply?;
        if reply.status.is_success() {
            made.push(word(&reply.body["id"]));
        } else {
            let problem = reply.refusal(429)?;
            ensure!(problem["type"] == "/problems/quota-reached", "{problem}");
            ensure!(word(&problem["detail"]).contains("max_active allows 2"), "{problem}");
            refused += 1;
        }
    }
    ensure!((made.len(), refused) == (2, 48), "{} made, {refused} refused", made.len());
    let stopped = format!("{WORKSPACES}/{}", made[0]);
    api.post(&format!("{stopped}/stop"), json!({})).await?.success()?;
    create().await?.success()?;
    let problem = api.post(&format!("{stopped}/resume"), json!({})).await?.refusal(429)?;
    ensure!(problem["type"] == "/problems/quota-reached", "{problem}");
    rows(api, "/api/v1/agent/audit?action=create&outcome=refused", 48).await?;
    Ok(())
}

async fn use_is_sampled_and_the_disk_is_watched(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_USAGE_INTERVAL_SEC", "1")).await?;
    let api = &server.api;
    let id = &api.create(json!({ "network": "none", "resource_limits": { "disk": "64M" } })).await?;
    let path = format!("{WORKSPACES}/{id}");
    let is_warned = |expected: bool| async move {
        until(&format!("the workspace is warned of: {expected}"), Duration::from_secs(40), || async {
            let warnings = api.workspace(id).await?["warnings"].to_string();
            Ok(if warnings.contains("disk limit of 64 MiB") == expected { Ok(()) } else { Err(warnings) })
        })
        .await
    };
    is_warned(false).await?;
    // In the volume, which the guest counts, and outside, where the engine does. (gVisor keeps /tmp in memory.)
    for (crossings, folder) in [(1, "/workspace"), (2, "/var/tmp")] {
        // Over the limit, and below what ends the workspace.
        api.bash(id, &format!("head -c 68M /dev/zero > {folder}/big")).await?;
        is_warned(true).await?;
        api.bash(id, &format!("rm {folder}/big")).await?;
        is_warned(false).await?;
        rows(api, &format!("{path}/audit?action=disk_over_limit"), crossings).await?;
        rows(api, &format!("{path}/audit?action=disk_below_limit"), crossings).await?;
    }
    let busy = json!({ "command": "while :; do :; done", "timeout_ms": 3_000 });
    api.tool(id, "bash", busy).await?.success()?;
    let history = api.get(&format!("{path}/usage/history")).await?.success()?;
    let total = |name: &str| history["totals"][name].as_f64().unwrap_or_default();
    ensure!(total("cpu_seconds") > 0.5 && total("memory_byte_seconds") > 1e6, "{history}");
    ensure!(history["samples"].as_array().is_some_and(|samples| samples.len() >= 3), "{history}");
    Ok(())
}
