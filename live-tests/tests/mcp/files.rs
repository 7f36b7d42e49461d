//! Files of hosted servers: copied in and out, and those of a workspace that a server shares.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime,
    mcp::{SERVERS, await_server, host, start},
};
use serde_json::json;

use crate::ready::emergent;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::files_are_copied_in_and_out_even_while_the_program_fails", copies),
        Case::new("mcp::a_server_sees_a_workspace_that_it_shares", shares),
        Case::new("mcp::another_projects_workspace_is_not_shared", not_another_projects),
    ]
}

async fn copies(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let run = |arguments: &[&str]| emergent(&server, arguments);
    // As servers do that want what is not there yet.
    let script = "[ -e /data/notes/a.txt ] || exit 1; exec fixture";
    let body =
        json!({ "name": "fixture", "network": "none", "cmd": ["sh", "-c", script], "volumes": { "d": "/data" } });
    let made = server.api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "failing", "{made}");
    let folder = tempfile::tempdir()?;
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes)?;
    std::fs::write(notes.join("a.txt"), "written outside")?;
    let notes = notes.to_str().context("a path")?;
    let (ok, _, said) = run(&["mcp", "cp", notes, "fixture:/data"])?;
    ensure!(ok, "{said}");
    await_server(&server.api, "it has what it wants", Duration::from_secs(90), |it| it["state"] == "running").await?;
    let (ok, out, said) = run(&["mcp", "cp", "fixture:/data/notes/a.txt", "-"])?;
    ensure!(ok && out == "written outside", "{out}{said}");
    let back = folder.path().join("back");
    let (ok, _, said) = run(&["mcp", "cp", "fixture:/data/notes", back.to_str().context("a path")?])?;
    ensure!(ok && std::fs::read_to_string(back.join("a.txt"))? == "written outside", "{said}");
    let (ok, _, said) = run(&["mcp", "cp", "fixture:/data/none", "-"])?;
    ensure!(!ok, "{said}");
    Ok(())
}

async fn shares(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let workspace = server.api.create(json!({ "name": "shared", "network": "none" })).await?;
    server.api.bash(&workspace, "echo from the workspace > note").await?;
    let read = json!({ "workspace": "shared", "path": "/code" });
    let id = host(&server.api, json!({ "volumes": { "code": read, "own": "/own" } })).await?;
    let shown = server.api.get(&format!("{SERVERS}/fixture")).await?.success()?;
    let expected = json!({ "code": { "workspace": workspace, "path": "/code", "mode": "ro" }, "own": "/own" });
    ensure!(shown["volumes"] == expected, "{shown}");

    let files = format!("{SERVERS}/fixture/files/content");
    let get = async |path: &str| {
        let answer = server.api.request(reqwest::Method::GET, &files).query(&[("path", path)]).send().await?;
        Ok::<_, anyhow::Error>((answer.status().as_u16(), answer.text().await?))
    };
    let put = async |path: &str, text: &'static str| {
        let request = server.api.request(reqwest::Method::PUT, &files).query(&[("path", path)]).body(text);
        Ok::<_, anyhow::Error>(request.send().await?.status().as_u16())
    };
    ensure!(get("/code/note").await? == (200, "from the workspace\n".to_owned()));
    ensure!(put("/code/planted", "by the server").await? >= 400, "it was written");
    ensure!(put("/own/kept", "its own").await? == 200);

    // `mcp update` leaves the volumes that are not named.
    let share = "code=shared:/code:rw";
    let (ok, _, said) = emergent(&server, &["mcp", "update", "fixture", "--share", share])?;
    ensure!(ok, "{said}");
    ensure!(put("/code/answer", "by the server").await? == 200);
    ensure!(server.api.bash(&workspace, "cat answer; echo more >> answer").await? == "by the server");
    ensure!(get("/code/answer").await?.1 == "by the servermore\n");
    ensure!(get("/own/kept").await? == (200, "its own".to_owned()), "its own volume was lost");

    // The workspace goes as any other, with all that it has, and the server says what it lacks.
    server.api.delete(&format!("/api/v1/agent/workspaces/{workspace}")).await?.refusal(204)?;
    ensure!(server.engine.resources_of(&workspace).await?.is_empty(), "the workspace left something");
    let failed = await_server(&server.api, "the server misses it", Duration::from_secs(90), |it| {
        it["state"] == "failed" && it["message"].as_str().is_some_and(|message| message.contains(&workspace))
    });
    let failed = failed.await?;
    ensure!(failed["message"].as_str().is_some_and(|message| message.contains("--no-volume code")), "{failed}");
    let (ok, _, said) = emergent(&server, &["mcp", "update", "fixture", "--no-volume", "code"])?;
    ensure!(ok, "{said}");
    ensure!(get("/own/kept").await? == (200, "its own".to_owned()), "its own volume was lost");
    ensure!(server.engine.resources_of(&workspace).await?.is_empty(), "something of the workspace came back");
    server.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    ensure!(server.engine.resources_of(&id).await?.is_empty(), "the server left something");
    Ok(())
}

async fn not_another_projects(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let workspace = server.api.create(json!({ "name": "private", "network": "none" })).await?;
    let other = json!({ "name": "other", "scopes": ["admin:read", "admin:write"], "project": "another" });
    let made = server.api.post("/api/v1/tokens", other).await?.success()?;
    let other = server.api.with_token(made["secret"].as_str().context("no secret")?);
    for given in [workspace.as_str(), "private"] {
        let volumes = json!({ "code": { "workspace": given, "path": "/code", "mode": "rw" } });
        let body = json!({ "name": "thief", "network": "none", "volumes": volumes });
        let refused = other.post(SERVERS, body).await?.refusal(404)?;
        ensure!(refused["errors"][0]["field"] == "volumes.code.workspace", "{refused}");
    }
    ensure!(other.list(SERVERS).await?.is_empty());
    Ok(())
}
