//! Snapshots, workspaces made from them, and forks: their contents, and the engine's objects after their removal.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, engine::PARTS, until};
use reqwest::Method;
use serde_json::{Value, json};

const SNAPSHOTS: &str = "/api/v1/agent/snapshots";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_snapshot_has_all_files_of_one_moment", all_files_of_one_moment),
        Case::new("what_is_installed_outside_the_workspace_comes_along", installed_packages),
        Case::new("owners_times_links_and_holes_come_along", attributes),
        Case::new("a_link_out_of_the_workspace_is_copied_as_a_link", links_out),
        Case::new("a_name_that_means_a_removed_file_is_told", marks_of_removal),
        Case::new("what_root_puts_in_the_place_of_the_guests_files_holds_up_no_fork", pipes_for_files),
        Case::new("forks_go_their_own_ways", forks_go_their_own_ways),
        Case::new("a_copy_has_a_history_of_its_own", own_history),
        Case::new("a_fork_needs_room_for_all_of_its_copies", room_for_all),
        Case::new("a_deleted_snapshot_leaves_its_workspaces_alone", deleted_snapshot),
        Case::new("what_is_paused_or_stopped_stays_so", paused_and_stopped),
        Case::new("a_workspace_destroyed_while_it_is_copied_leaves_nothing", destroyed_meanwhile),
        Case::new("a_repeated_request_makes_one_snapshot_and_one_fork", repeated_requests),
        Case::new("another_project_sees_no_snapshot", another_project),
        Case::new("a_snapshot_without_its_parts_is_said_to_be_lost", lost_parts),
    ]
}

async fn snapshot(server: &Server, id: &str) -> anyhow::Result<String> {
    let taken = server.api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.success()?;
    ensure!(taken["state"] == "ready", "{taken}");
    Ok(taken["id"].as_str().context("a snapshot without an id")?.to_owned())
}

async fn made_from(server: &Server, snapshot: &str) -> anyhow::Result<String> {
    server.api.create(json!({ "snapshot_id": snapshot })).await
}

async fn fork(server: &Server, id: &str, body: Value) -> anyhow::Result<Vec<Value>> {
    let forked = server.api.post(&format!("{WORKSPACES}/{id}/fork"), body).await?.success()?;
    let copies = forked["items"].as_array().context("no items")?;
    for copy in copies {
        ensure!(copy["state"] == "ready", "{copy}");
    }
    Ok(copies.clone())
}

fn id_of(workspace: &Value) -> anyhow::Result<&str> {
    workspace["id"].as_str().context("no id")
}

async fn as_root(server: &Server, id: &str, command: &str) -> anyhow::Result<String> {
    let result = server.api.tool(id, "bash", json!({ "command": command, "user": "root" })).await?.success()?;
    ensure!(result["exit_code"] == 0, "{command}: {result}");
    Ok(result["stdout"].as_str().context("no stdout")?.to_owned())
}

async fn marks_of_removal(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "touch /workspace/.wh.kept /var/tmp/.wh.lost /var/tmp/lost").await?;
    let refused = server.api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.refusal(422)?;
    let said = refused["detail"].as_str().unwrap_or_default();
    ensure!(said.contains("/var/tmp/.wh.lost") && said.contains("rename"), "{refused}");
    server.api.bash(&id, "rm /var/tmp/.wh.lost").await?;
    let copy = made_from(&server, &snapshot(&server, &id).await?).await?;
    server.api.bash(&copy, "ls /workspace/.wh.kept /var/tmp/lost").await.map(drop)
}

async fn pipes_for_files(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    let plant = "cd /var/lib/emergent && for name in workspace-id workspace-id.new hand-over.json inherited.json \
        executions.new ca-bundle.new output/x; do rm -rf $name; mkfifo $name; done";
    as_root(&server, &id, plant).await?;
    let copy = fork(&server, &id, json!({})).await?;
    let copy = copy.first().context("no copy")?;
    ensure!(server.api.bash(id_of(copy)?, "echo alive").await? == "alive\n");
    // The workspace itself starts again, too.
    server.api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&id, "echo alive").await? == "alive\n");
    Ok(())
}

/// A writer appends to a file in /workspace and then to one outside, over and over: in every snapshot the first is as
/// long as the second, or one line longer.
async fn all_files_of_one_moment(runtime: Runtime) -> anyhow::Result<()> {
    const WRITER: &str = "import os, itertools\n\
        a = os.open('/workspace/a', os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
        b = os.open('/var/tmp/b', os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
        for n in itertools.count():\n    line = b'%011d\\n' % n\n    os.write(a, line)\n    os.write(b, line)\n";
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    // Something to copy, so that the copying takes a while.
    server
        .api
        .bash(&id, "head -c 60000000 /dev/urandom > ballast && head -c 20000000 /dev/urandom > ~/ballast")
        .await?;
    server.api.tool(&id, "write", json!({ "file_path": "writer.py", "content": WRITER })).await?.success()?;
    let writer = json!({ "command": "exec python3 writer.py", "execution_id": "writer" });
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), writer).await?.success()?;
    let lines = async |id: &str, path: &str| -> anyhow::Result<u64> {
        Ok(server.api.bash(id, &format!("wc -c < {path}")).await?.trim().parse::<u64>()? / 12)
    };
    let mut seen = 0;
    for _ in 0..3 {
        until("the writer goes on", Duration::from_secs(20), || async {
            let now = lines(&id, "/workspace/a").await.unwrap_or(0);
            Ok(if now > seen + 100 { Ok(()) } else { Err(format!("{now} lines after {seen}")) })
        })
        .await?;
        let snapshot = snapshot(&server, &id).await?;
        let copy = made_from(&server, &snapshot).await?;
        let (a, b) = (lines(&copy, "/workspace/a").await?, lines(&copy, "/var/tmp/b").await?);
        ensure!(a == b || a == b + 1, "torn: {a} lines in one, {b} in the other");
        ensure!(a > seen, "no progress: {a} lines after {seen}");
        server.api.bash(&copy, "tail -c 12 a && cmp <(head -c 1000 a) <(head -c 1000 /var/tmp/b)").await?;
        server.api.delete(&format!("{WORKSPACES}/{copy}")).await?.refusal(204)?;
        seen = a;
    }
    Ok(())
}

async fn installed_packages(runtime: Runtime) -> anyhow::Result<()> {
    const DEB: &str = "set -e; d=$(mktemp -d); mkdir -p $d/DEBIAN $d/usr/bin; \
        printf 'Package: hello-snapshot\\nVersion: 1.2\\nArchitecture: all\\nMaintainer: n <n@example.org>\\nDescription: t\\n' > $d/DEBIAN/control; \
        printf '#!/bin/sh\\necho from a package\\n' > $d/usr/bin/hello-snapshot; chmod 755 $d $d/usr/bin/hello-snapshot; \
        dpkg-deb --build $d /tmp/p.deb >/dev/null; dpkg -i /tmp/p.deb >/dev/null 2>&1";
    const WHEEL: &str = "import zipfile\n\
        with zipfile.ZipFile('/tmp/hellosnap-1.0-py3-none-any.whl', 'w') as z:\n\
        \x20   z.writestr('hellosnap.py', 'WORD = \"from a wheel\"\\n')\n\
        \x20   i = 'hellosnap-1.0.dist-info/'\n\
        \x20   z.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: hellosnap\\nVersion: 1.0\\n')\n\
        \x20   z.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   z.writestr(i + 'RECORD', '')\n";
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true, "environment": { "GREETING": "hello" } })).await?;
    as_root(&server, &id, DEB).await?;
    server.api.tool(&id, "write", json!({ "file_path": "/tmp/wheel.py", "content": WHEEL })).await?.success()?;
    let pip = "python3 /tmp/wheel.py && python3 -m pip install --quiet --no-index --break-system-packages --user \
               /tmp/hellosnap-1.0-py3-none-any.whl";
    server.api.bash(&id, pip).await?;

    let snapshot = snapshot(&server, &id).await?;
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    let copy = made_from(&server, &snapshot).await?;
    let shown = server.api.workspace(&copy).await?;
    ensure!(shown["snapshot_id"] == snapshot.as_str() && shown["source_workspace_id"] == id.as_str(), "{shown}");
    ensure!(shown["allow_root"] == true, "{shown}");
    let run =
        "hello-snapshot; dpkg -s hello-snapshot | grep Version; python3 -c 'import hellosnap; print(hellosnap.WORD)'";
    let said = server.api.bash(&copy, run).await?;
    ensure!(said == "from a package\nVersion: 1.2\nfrom a wheel\n", "{said}");
    ensure!(server.api.bash(&copy, "echo $GREETING").await? == "hello\n", "the environment did not come along");
    as_root(&server, &copy, "dpkg -r hello-snapshot").await.map(drop)
}

async fn attributes(runtime: Runtime) -> anyhow::Result<()> {
    const MAKE: &str = "set -e; cd /workspace; mkdir -p d/e; echo x > d/e/file; chmod 4751 d/e/file; \
        ln d/e/file d/hard; ln -s nowhere broken; truncate -s 1G sparse; printf data | dd of=sparse bs=1 seek=500000000 \
        conv=notrunc 2>/dev/null; mkfifo pipe; touch \"$(printf 'odd\\nname')\"; chown 1234:4321 d/e/file broken -h; \
        chmod 1733 d; touch -h -d '2001-02-03 04:05:06.123456789' broken; touch -d '2002-03-04 05:06:07.5' d/e/file d/e d; \
        python3 -c \"import os; os.setxattr('/workspace/d/e/file', 'user.note', b'kept')\" || true; chmod 2750 .";
    const SHOW: &str = "cd /workspace; find . -path './*' -printf '%P|%y|%m|%U:%G|%T@|%s|%l|%n\\n' | sort; \
        stat -c '%a %u:%g' /workspace 2>/dev/null; python3 -c \"import os; print(os.listxattr('d/e/file'))\"; \
        tail -c +500000001 sparse | head -c 4; test d/e/file -ef d/hard && echo linked; du -k sparse | cut -f1";
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    as_root(&server, &id, MAKE).await?;
    if runtime == Runtime::Runsc {
        // gVisor keeps pipes in its own memory: they end with the sandbox.
        as_root(&server, &id, "rm /workspace/pipe && touch -d '2000-01-01' /workspace").await?;
    }
    let was = as_root(&server, &id, SHOW).await?;
    ensure!(was.contains("linked") && was.contains("data"), "{was}");
    let snapshot = snapshot(&server, &id).await?;
    let copy = made_from(&server, &snapshot).await?;
    let is = as_root(&server, &copy, SHOW).await?;
    ensure!(was == is, "was\n{was}\nis\n{is}");
    Ok(())
}

async fn links_out(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    let links = "ln -s /etc etc; ln -s / root; ln -s ../../../../../../from up; ln -s /to to; ln -s /.emergent guest; \
                 ln -s /proc/1/root proc; mkdir dir; ln -s .. dir/dotdot; ln -s /dev/zero zero";
    server.api.bash(&id, links).await?;
    let show = "find /workspace -printf '%P %y %l\\n' | sort";
    let was = server.api.bash(&id, show).await?;
    let snapshot = snapshot(&server, &id).await?;
    let copy = made_from(&server, &snapshot).await?;
    let is = server.api.bash(&copy, show).await?;
    ensure!(was == is && was.lines().count() == 10, "was\n{was}\nis\n{is}");
    let shown = server.api.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.success()?;
    ensure!(shown["workspace_bytes"].as_u64().is_some_and(|bytes| bytes < 100_000), "{shown}");
    Ok(())
}

async fn forks_go_their_own_ways(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let source = json!({ "name": "source", "labels": { "team": "a" }, "network": "none", "environment": { "V": "1" } });
    let id = server.api.create(source).await?;
    server.api.bash(&id, "echo common > file; echo common > ~/outside").await?;
    let copies = fork(&server, &id, json!({ "count": 3, "environment": { "W": "2" } })).await?;
    ensure!(copies.len() == 3, "{copies:?}");
    for (number, copy) in copies.iter().enumerate() {
        ensure!(copy["name"] == format!("source-{}", number + 1) && copy["labels"]["team"] == "a", "{copy}");
        ensure!(copy["network"] == "none" && copy["source_workspace_id"] == id.as_str(), "{copy}");
        let said = server.api.bash(id_of(copy)?, "cat file ~/outside; echo $V$W").await?;
        ensure!(said == "common\ncommon\n12\n", "{said}");
        server.api.bash(id_of(copy)?, &format!("echo {number} > file; echo {number} > ~/outside")).await?;
    }
    server.api.bash(&id, "echo source >> file").await?;
    for (number, copy) in copies.iter().enumerate() {
        let said = server.api.bash(id_of(copy)?, "cat file ~/outside").await?;
        ensure!(said == format!("{number}\n{number}\n"), "{said}");
    }
    let listed = server.api.get(SNAPSHOTS).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "the snapshot between is shown: {listed}");

    // The source goes, its copies stay; when they are gone, nothing is left.
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    let one = id_of(&copies[0])?;
    server.api.post(&format!("{WORKSPACES}/{one}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{one}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(one, "cat file ~/outside").await? == "0\n0\n");
    for copy in &copies {
        server.api.delete(&format!("{WORKSPACES}/{}", id_of(copy)?)).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}

async fn own_history(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true, "environment": { "A": "1", "B": "1" } })).await?;
    let build = json!({ "command": "echo built", "execution_id": "build" });
    server.api.tool(&id, "bash", build.clone()).await?.success()?;
    let changed = json!({ "allow_root": false, "environment": { "B": "2" } });
    let copies = fork(&server, &id, changed).await?;
    let copy = id_of(&copies[0])?;
    server.api.get(&format!("{WORKSPACES}/{copy}/processes/build")).await?.refusal(404)?;
    server.api.tool(copy, "bash", build).await?.success()?;
    let as_root = json!({ "command": "id", "user": "root" });
    ensure!(server.api.tool(copy, "bash", as_root).await?.status.is_client_error(), "the copy allows root");
    for _ in 0..2 {
        ensure!(server.api.bash(copy, "echo $A$B").await? == "12\n", "the environment is another");
        server.api.post(&format!("{WORKSPACES}/{copy}/stop"), json!({})).await?.success()?;
        server.api.post(&format!("{WORKSPACES}/{copy}/resume"), json!({})).await?.success()?;
    }
    server.api.get(&format!("{WORKSPACES}/{id}/processes/build")).await?.success().map(drop)
}

async fn room_for_all(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_MAX_CONCURRENT", "3")).await?;
    let id = server.api.create_default().await?;
    let request = server.api.request(Method::POST, &format!("{WORKSPACES}/{id}/fork")).json(&json!({ "count": 3 }));
    let response = request.send().await?;
    ensure!(response.status() == 429 && response.headers().contains_key("retry-after"), "{response:?}");
    let listed = server.api.get(&format!("{WORKSPACES}?include_destroyed=true")).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(|items| items.len() == 1), "{listed}");
    let left = server.engine.resources_of_server(server.id()).await?;
    ensure!(left.iter().filter(|name| !name.contains("emergent-probe")).count() == PARTS, "{left:?}");
    ensure!(fork(&server, &id, json!({ "count": 2 })).await?.len() == 2);
    Ok(())
}

async fn deleted_snapshot(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo kept > file; echo kept > ~/outside").await?;
    let first = snapshot(&server, &id).await?;
    let copy = made_from(&server, &first).await?;
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    server.api.delete(&format!("{SNAPSHOTS}/{first}")).await?.refusal(204)?;
    server.api.get(&format!("{SNAPSHOTS}/{first}")).await?.refusal(404)?;
    server.api.delete(&format!("{SNAPSHOTS}/{first}")).await?.refusal(404)?;
    let refused = server.api.post(WORKSPACES, json!({ "snapshot_id": first })).await?.refusal(404)?;
    ensure!(refused["type"].as_str().is_some_and(|kind| kind.ends_with("snapshot-not-found")), "{refused}");

    server.api.post(&format!("{WORKSPACES}/{copy}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{copy}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&copy, "cat file ~/outside").await? == "kept\nkept\n");
    // A copy of a copy, whose layers are on those of the snapshot that is gone.
    let second = snapshot(&server, &copy).await?;
    server.api.delete(&format!("{WORKSPACES}/{copy}")).await?.refusal(204)?;
    let copy = made_from(&server, &second).await?;
    ensure!(server.api.bash(&copy, "cat file ~/outside").await? == "kept\nkept\n");
    server.api.delete(&format!("{SNAPSHOTS}/{second}")).await?.refusal(204)?;
    ensure!(server.api.bash(&copy, "cat file").await? == "kept\n");
    server.api.delete(&format!("{WORKSPACES}/{copy}")).await?.refusal(204)?;
    server.await_nothing_left().await
}

async fn paused_and_stopped(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo kept > file; echo kept > ~/outside").await?;
    for (operation, state) in [("pause", "paused"), ("stop", "stopped")] {
        server.api.post(&format!("{WORKSPACES}/{id}/{operation}"), json!({})).await?.success()?;
        let snapshot = snapshot(&server, &id).await?;
        let shown = server.api.workspace(&id).await?;
        ensure!(shown["state"] == state, "{shown}");
        let engine = server.engine.inspect(&id).await?.state.unwrap_or_default();
        ensure!(engine.paused == Some(state == "paused"), "{engine:?}");
        let copy = made_from(&server, &snapshot).await?;
        ensure!(server.api.bash(&copy, "cat file ~/outside").await? == "kept\nkept\n");
        server.api.delete(&format!("{WORKSPACES}/{copy}")).await?.refusal(204)?;
    }
    server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&id, "cat file").await? == "kept\n");
    Ok(())
}

async fn destroyed_meanwhile(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "head -c 80000000 /dev/urandom > file").await?;
    let begun = server.api.post(&format!("{WORKSPACES}/{id}/snapshots?wait_seconds=0"), json!({})).await?.success()?;
    ensure!(begun["state"] == "creating", "{begun}");
    let snapshot = id_of(&begun)?;
    let refused = server.api.post(WORKSPACES, json!({ "snapshot_id": snapshot })).await?.refusal(409)?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains("creating")), "{refused}");
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    ensure!(server.engine.resources_of(&id).await?.is_empty(), "the workspace left something");
    let shown = server.api.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.success()?;
    ensure!(shown["state"] == "ready", "{shown}");
    let copy = made_from(&server, snapshot).await?;
    ensure!(server.api.bash(&copy, "wc -c < file").await?.trim() == "80000000");
    server.api.delete(&format!("{SNAPSHOTS}/{snapshot}")).await?.refusal(204)?;
    server.api.delete(&format!("{WORKSPACES}/{copy}")).await?.refusal(204)?;
    server.await_nothing_left().await
}

async fn repeated_requests(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let send = |what: &str, key: &str, body: Value| {
        let request = server.api.request(Method::POST, &format!("{WORKSPACES}/{id}/{what}"));
        server.api.send(request.header("Idempotency-Key", key).json(&body))
    };
    let first = send("snapshots", "one", json!({ "name": "a" })).await?.success()?;
    let again = send("snapshots", "one", json!({ "name": "a" })).await?.success()?;
    ensure!(first["id"] == again["id"], "two snapshots came of one key");
    send("snapshots", "one", json!({ "name": "b" })).await?.refusal(422)?;

    let first = send("fork", "two", json!({ "count": 2 })).await?.success()?;
    let again = send("fork", "two", json!({ "count": 2 })).await?.success()?;
    let ids = |forked: &Value| -> Vec<String> {
        forked["items"].as_array().into_iter().flatten().map(|copy| copy["id"].to_string()).collect()
    };
    ensure!(ids(&first).len() == 2 && ids(&first) == ids(&again), "{first} {again}");
    send("fork", "two", json!({ "count": 1 })).await?.refusal(422).map(drop)
}

async fn another_project(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let snapshot = snapshot(&server, &id).await?;
    let token = json!({ "name": "stranger", "scopes": ["admin:read", "admin:write"], "project": "another" });
    let token = server.api.post("/api/v1/tokens", token).await?.success()?;
    let stranger = server.api.with_token(token["secret"].as_str().context("no secret")?);
    stranger.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.refusal(404)?;
    stranger.delete(&format!("{SNAPSHOTS}/{snapshot}")).await?.refusal(404)?;
    stranger.post(WORKSPACES, json!({ "snapshot_id": snapshot })).await?.refusal(404)?;
    stranger.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.refusal(404)?;
    stranger.post(&format!("{WORKSPACES}/{id}/fork"), json!({})).await?.refusal(404)?;
    let listed = stranger.get(SNAPSHOTS).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "{listed}");
    server.api.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.success().map(drop)
}

async fn lost_parts(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let snapshot = snapshot(&server, &id).await?;
    let name = format!("emergent-snapshot-{snapshot}");
    for arguments in [["volume", "rm", &name], ["image", "rm", &name]] {
        let removed = std::process::Command::new("docker").args(arguments).output()?;
        ensure!(removed.status.success(), "{removed:?}");
    }
    server.terminate().await?;
    server.restart(|_| {}).await?;
    let shown = server.api.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.success()?;
    ensure!(
        shown["state"] == "error" && shown["error"].as_str().is_some_and(|why| why.contains("no longer")),
        "{shown}"
    );
    server.api.post(WORKSPACES, json!({ "snapshot_id": snapshot })).await?.refusal(409)?;
    server.api.delete(&format!("{SNAPSHOTS}/{snapshot}")).await?.refusal(204).map(drop)
}
