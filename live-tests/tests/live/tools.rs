//! The tools, through the whole stack, in a real sandbox.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, until};
use futures::{future::join_all, stream};
use reqwest::{Body, Method};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("bash_tells_all_that_happened", bash_tells_all_that_happened),
        Case::new("a_timeout_ends_the_whole_tree", a_timeout_ends_the_whole_tree),
        Case::new("a_server_left_running_holds_nothing_up", a_server_left_running_holds_nothing_up),
        Case::new("long_output_is_cut_and_kept", long_output_is_cut_and_kept),
        Case::new("files_are_read_written_and_edited", files_are_read_written_and_edited),
        Case::new("files_are_found", files_are_found),
        Case::new("git_is_structured", git_is_structured),
        Case::new("any_bytes_travel_both_ways", any_bytes_travel_both_ways),
        Case::new("a_directory_travels_both_ways", a_directory_travels_both_ways),
        Case::new("a_thousand_calls_at_once_are_answered", a_thousand_calls_at_once_are_answered),
        Case::new("a_fork_bomb_ends_with_its_execution", a_fork_bomb_ends_with_its_execution),
        Case::new("out_of_memory_is_said_and_survived", out_of_memory_is_said_and_survived),
        Case::new("root_ending_the_sandbox_is_survived", root_ending_the_sandbox_is_survived),
        Case::new("standard_input_and_signals_reach_a_process", standard_input_and_signals_reach_a_process),
    ]
}

async fn bash_tells_all_that_happened(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let command = json!({
        "command": "pwd; id -u; echo $GREETING; echo oops >&2; exit 7",
        "workdir": "/tmp",
        "env": { "GREETING": "grüße" },
    });
    let result = server.api.tool(&id, "bash", command).await?.success()?;
    ensure!(result["stdout"] == "/tmp\n1000\ngrüße\n", "{result}");
    ensure!(result["stderr"] == "oops\n" && result["exit_code"] == 7, "{result}");
    ensure!(result["timed_out"] == false && result["truncated"] == false, "{result}");

    let ended = server.api.tool(&id, "bash", json!({ "command": "kill -9 $$" })).await?.success()?;
    ensure!(ended["exit_code"] == 137 && ended["signal"] == "SIGKILL", "{ended}");
    server.api.tool(&id, "bash", json!({ "command": "true", "workdir": "/nowhere" })).await?.refusal(404)?;
    server.api.tool(&id, "bash", json!({ "command": "true", "timeout_ms": -1 })).await?.refusal(422)?;
    Ok(())
}

async fn a_timeout_ends_the_whole_tree(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & \
        env -i setsid sleep 4321 & echo started; while :; do sleep 1; done";
    let result = server.api.tool(&id, "bash", json!({ "command": stubborn, "timeout_ms": 1000 })).await?.success()?;
    ensure!(result["timed_out"] == true && result["stdout"] == "started\n", "{result}");
    let left =
        server.api.bash(&id, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 4321 || true").await?;
    // The grep sees itself, as an argument of the shell that runs it.
    let own = server.api.bash(&id, "cat /proc/[0-9]*/comm | sort").await?;
    ensure!(!own.lines().any(|name| name == "setsid" || name == "sleep"), "left running: {own} ({left})");
    Ok(())
}

async fn a_server_left_running_holds_nothing_up(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let started = Instant::now();
    let listen = "python3 -m http.server 8000 & echo up";
    ensure!(server.api.bash(&id, listen).await? == "up\n");
    ensure!(started.elapsed() < Duration::from_secs(10), "the call waited for the background process");
    until("the server left running answers", Duration::from_secs(20), || async {
        let fetched = json!({ "command": "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/" });
        let result = server.api.tool(&id, "bash", fetched).await?.success()?;
        Ok(if result["stdout"] == "200" { Ok(()) } else { Err(result.to_string()) })
    })
    .await
}

async fn long_output_is_cut_and_kept(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let result = server.api.tool(&id, "bash", json!({ "command": "seq 100000" })).await?.success()?;
    let shown = result["stdout"].as_str().context("no stdout")?;
    ensure!(result["truncated"] == true && shown.len() < 60_000, "{} bytes shown", shown.len());
    ensure!(shown.starts_with("1\n2\n") && shown.ends_with("99999\n100000\n"), "neither head nor tail");
    ensure!(result["stdout_bytes"] == 588_895, "{}", result["stdout_bytes"]);
    let file = result["stdout_file"].as_str().context("no file named")?;
    ensure!(server.api.bash(&id, &format!("wc -l < {file}")).await?.trim() == "100000");
    Ok(())
}

async fn files_are_read_written_and_edited(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let tool = |name, body| server.api.tool(&id, name, body);

    let written = json!({ "file_path": "src/deep/a.txt", "content": "one\ntwo\ntwo\n" });
    ensure!(tool("write", written).await?.success()?["created"] == true);
    let read = tool("read", json!({ "file_path": "src/deep/a.txt", "offset": 2, "limit": 1 })).await?.success()?;
    ensure!(read["content"] == "2: two\n" || read["content"] == "2: two", "{read}");
    let several = json!({ "file_path": "src/deep/a.txt", "old_string": "two", "new_string": "2" });
    let several = tool("edit", several).await?.refusal(422)?;
    let absent = json!({ "file_path": "src/deep/a.txt", "old_string": "three", "new_string": "3" });
    let absent = tool("edit", absent).await?.refusal(422)?;
    ensure!(several["type"] != absent["type"], "{several} {absent}");
    let all = json!({ "file_path": "src/deep/a.txt", "old_string": "two", "new_string": "2", "replace_all": true });
    let edited = tool("edit", all).await?.success()?;
    ensure!(edited["replacements"] == 2 && edited["lines_changed"] == 2, "{edited}");
    // `find`, since Debian 12's `stat` fails under old releases of gVisor.
    ensure!(server.api.bash(&id, "find src/deep/a.txt -printf '%U:%m'").await? == "1000:644");

    let listing = tool("read", json!({ "file_path": "src" })).await?.success()?;
    ensure!(listing["content"].as_str().is_some_and(|names| names.trim() == "deep/"), "{listing}");
    tool("read", json!({ "file_path": "absent" })).await?.refusal(404)?;
    server.api.bash(&id, "head -c 2000 /dev/zero > zeros; mkfifo pipe; ln -s loop loop").await?;
    let binary = tool("read", json!({ "file_path": "zeros" })).await?.success()?;
    ensure!(binary["kind"] == "binary" && binary["size"] == 2000, "{binary}");
    for odd in ["pipe", "loop"] {
        let refused = tool("read", json!({ "file_path": odd })).await?;
        ensure!(refused.status.is_client_error(), "{odd}: {refused:?}");
    }
    let protected = tool("write", json!({ "file_path": "/etc/passwd", "content": "" })).await?;
    protected.refusal(403)?;
    Ok(())
}

async fn files_are_found(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let make = "git init -q . && mkdir -p a/b build && echo needle > a/b/x.rs && echo needle > build/y.rs && \
        echo build/ > .gitignore && touch -d 2020-01-01 a/b/x.rs && echo 'no thing' > a/z.txt && \
        echo needle > $'caf\\xe9.rs'";
    server.api.bash(&id, make).await?;
    let found = server.api.tool(&id, "glob", json!({ "pattern": "**/*.rs" })).await?.success()?;
    let files = found["files"].as_array().context("no files")?;
    ensure!(files.last().is_some_and(|last| last == "/workspace/a/b/x.rs"), "the oldest is not last: {found}");
    ensure!(files.iter().any(|file| file == r"$'/workspace/caf\xe9.rs'"), "{found}");
    let none = server.api.tool(&id, "glob", json!({ "pattern": "*.nothing" })).await?.success()?;
    ensure!(none["files"] == json!([]), "{none}");

    let grep = server.api.tool(&id, "grep", json!({ "pattern": "need.e", "include": "*.rs" })).await?.success()?;
    let matches = grep["matches"].as_array().context("no matches")?;
    ensure!(matches.len() == 2 && matches.iter().all(|found| found["line"] == "needle"), "{grep}");
    let all = json!({ "pattern": "needle", "no_ignore": true });
    let all = server.api.tool(&id, "grep", all).await?.success()?;
    ensure!(all["matches"].as_array().is_some_and(|matches| matches.len() == 3), "{all}");
    server.api.tool(&id, "grep", json!({ "pattern": "(" })).await?.refusal(400)?;
    Ok(())
}

async fn git_is_structured(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let git = |body| server.api.tool(&id, "git", body);
    server.api.bash(&id, "git init -q -b main . && echo one > a").await?;
    let status = git(json!({ "action": "status" })).await?.success()?;
    ensure!(status["branch"] == "main" && status["files"][0]["path"] == "a", "{status}");
    let commit = git(json!({ "action": "commit", "message": "first" })).await?.success()?;
    ensure!(commit["commit"].as_str().is_some_and(|commit| commit.len() == 40), "{commit}");
    git(json!({ "action": "checkout", "reference": "topic", "create": true })).await?.success()?;
    server.api.bash(&id, "echo two >> a").await?;
    let diff = git(json!({ "action": "diff" })).await?.success()?;
    ensure!(diff["diff"].as_str().is_some_and(|diff| diff.contains("+two")), "{diff}");
    let log = git(json!({ "action": "log" })).await?.success()?;
    ensure!(log["commits"][0]["subject"] == "first", "{log}");
    let branches = git(json!({ "action": "branch" })).await?.success()?;
    ensure!(branches["current"] == "topic" && branches["branches"] == json!(["main", "topic"]), "{branches}");
    git(json!({ "action": "checkout", "reference": "--orphan" })).await?.refusal(400)?;
    let unknown = git(json!({ "action": "status", "colour": "red" })).await?;
    ensure!(unknown.status.is_client_error() && unknown.body.to_string().contains("colour"), "{unknown:?}");
    Ok(())
}

async fn any_bytes_travel_both_ways(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    // Twenty megabytes that no compressor and no UTF-8 decoder likes.
    let mut bytes = Vec::with_capacity(20 << 20);
    let mut block = Sha256::digest(b"seed");
    while bytes.len() < 20 << 20 {
        block = Sha256::digest(block);
        bytes.extend_from_slice(&block);
    }
    let sum = format!("{:x}", HexOf(&Sha256::digest(&bytes)));
    let chunks: Vec<_> = bytes.chunks(1 << 20).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let path = format!("{WORKSPACES}/{id}/files/content?path=%24%27d%2Fcaf%5Cxe9%27");
    let upload = server.api.request(Method::PUT, &path).body(Body::wrap_stream(stream::iter(chunks)));
    server.api.send(upload).await?.success()?;
    let inside = server.api.bash(&id, "sha256sum d/* | cut -c-65").await?;
    ensure!(inside.trim().trim_start_matches('\\') == sum, "{inside} is not {sum}");
    let back = server.api.request(Method::GET, &path).send().await?.error_for_status()?.bytes().await?;
    ensure!(back == bytes, "what came back differs");
    let part = server.api.request(Method::GET, &path).header("Range", "bytes=100-199").send().await?;
    ensure!(part.status() == 206 && part.bytes().await? == bytes[100..200], "the range is wrong");
    Ok(())
}

struct HexOf<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

async fn a_directory_travels_both_ways(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "mkdir -p from/sub && echo text > from/sub/file && ln -s sub/file from/link").await?;
    let path = |path: &str| format!("{WORKSPACES}/{id}/files/archive?path={path}");
    let archive = server.api.request(Method::GET, &path("from")).send().await?.error_for_status()?.bytes().await?;
    let unpack = server.api.request(Method::PUT, &path("to")).body(archive);
    server.api.send(unpack).await?.refusal(204)?;
    ensure!(server.api.bash(&id, "find to -name link -exec cat {} +").await? == "text\n");
    Ok(())
}

async fn a_thousand_calls_at_once_are_answered(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo text > file").await?;
    let calls = (0..1000).map(|_| server.api.tool(&id, "read", json!({ "file_path": "file" })));
    for reply in join_all(calls).await {
        ensure!(reply?.success()?["content"].as_str().is_some_and(|content| content.trim_end() == "1: text"));
    }
    Ok(())
}

async fn a_fork_bomb_ends_with_its_execution(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "pids": 256 } })).await?;
    server.api.bash(&id, "echo kept > file").await?;
    let bomb = json!({ "command": "bomb() { bomb | bomb & }; bomb; sleep 2", "timeout_ms": 4000 });
    drop(server.api.tool(&id, "bash", bomb).await?);
    until("the workspace works again", Duration::from_secs(60), || async {
        let read = server.api.tool(&id, "bash", json!({ "command": "cat file" })).await?;
        Ok(if read.body["stdout"] == "kept\n" { Ok(()) } else { Err(read.body.to_string()) })
    })
    .await
}

async fn out_of_memory_is_said_and_survived(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "memory": "256M" } })).await?;
    server.api.bash(&id, "echo kept > file").await?;
    let hungry = json!({ "command": "python3 -c 'x = bytearray(1 << 30)'" });
    let reply = server.api.tool(&id, "bash", hungry).await?;
    // Under runc the kernel ends the process; under gVisor the whole sandbox. Either way it is said.
    let said = reply.body["exit_code"].as_i64().is_some_and(|code| code != 0)
        || reply.body["outcome"] == "lost"
        || reply.status.is_server_error();
    ensure!(said, "{reply:?}");
    until("the workspace works again", Duration::from_secs(30), || async {
        let read = server.api.tool(&id, "bash", json!({ "command": "cat file" })).await?;
        Ok(if read.body["stdout"] == "kept\n" { Ok(()) } else { Err(read.body.to_string()) })
    })
    .await
}

async fn root_ending_the_sandbox_is_survived(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    server.api.bash(&id, "echo kept > file").await?;
    drop(server.api.tool(&id, "bash", json!({ "command": "kill -9 1; kill -9 -1", "user": "root" })).await?);
    until("the workspace works again", Duration::from_secs(30), || async {
        let read = server.api.tool(&id, "bash", json!({ "command": "cat file" })).await?;
        Ok(if read.body["stdout"] == "kept\n" { Ok(()) } else { Err(read.body.to_string()) })
    })
    .await
}

async fn standard_input_and_signals_reach_a_process(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let processes = format!("{WORKSPACES}/{id}/processes");
    let start = json!({ "command": "cat; echo end", "stdin": true, "execution_id": "cat" });
    server.api.post(&processes, start).await?.success()?;
    let input = server.api.request(Method::POST, &format!("{processes}/cat/stdin?close=true")).body("typed\n");
    server.api.send(input).await?.refusal(204)?;
    let result = server.api.get(&format!("{processes}/cat/wait")).await?.success()?;
    ensure!(result["stdout"] == "typed\nend\n", "{result}");

    let start = json!({ "command": "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done",
        "execution_id": "trap" });
    server.api.post(&processes, start).await?.success()?;
    until("the trap is set", Duration::from_secs(10), || async {
        let process = server.api.get(&format!("{processes}/trap")).await?.success()?;
        Ok(if process["stdout_bytes"] == 3 { Ok(()) } else { Err(process.to_string()) })
    })
    .await?;
    server.api.post(&format!("{processes}/trap/signal"), json!({ "signal": "INT" })).await?.refusal(204)?;
    let result = server.api.get(&format!("{processes}/trap/wait")).await?.success()?;
    ensure!(result["exit_code"] == 3 && result["stdout"] == "up\ncaught\n", "{result}");
    Ok(())
}
