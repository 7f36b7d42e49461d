//! Images: the projects that may use them, their registries, their declarations, and their removal.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use bollard::query_parameters::{InspectContainerOptions, RemoveImageOptions};
use emergent_live_tests::{
    Api, Case, Image, Runtime, Server, ServerOptions,
    api::{SNAPSHOTS, WORKSPACES},
    engine::PARTS,
    mcp::SERVERS,
    registry::{PASSWORD, Registry},
    until,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const PRIVATE_REGISTRIES: &str = "WORKSPACE_PRIVATE_REGISTRIES";
const LOGINS: &str = "WORKSPACE_REGISTRY_AUTH_FILE";
const ALLOWED: &str = "WORKSPACE_ALLOWED_IMAGES";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("an_image_is_pulled_from_a_private_registry", an_image_is_pulled_from_a_private_registry),
        Case::new("a_wrong_login_is_said_and_kept_secret", a_wrong_login_is_said_and_kept_secret),
        Case::new("an_image_that_is_not_allowed_is_refused", an_image_that_is_not_allowed_is_refused),
        Case::new("no_reference_opens_another_projects_snapshot", no_reference_opens_a_snapshot),
        Case::new("a_snapshots_image_has_no_value_of_the_environment", no_secret_in_an_image),
        Case::new("an_image_of_the_engine_needs_the_operators_word", local_images_need_the_operators_word),
        Case::new("what_one_project_has_pulled_is_no_image_of_another", pulled_for_one_project),
        Case::new("a_pulled_image_that_nobody_uses_is_removed", unused_images_go),
        Case::new("the_engine_is_sent_to_no_private_registry", private_registries),
        Case::new("volumes_of_an_image_come_along_and_count", volumes_of_an_image),
        Case::new("what_is_in_tmp_stays_and_comes_along", tmp_is_kept),
    ]
}

async fn another_project(server: &Server) -> anyhow::Result<Api> {
    let token = json!({ "name": "stranger", "scopes": ["admin:read", "admin:write"], "project": "another" });
    let token = server.api.post("/api/v1/tokens", token).await?.success()?;
    Ok(server.api.with_token(token["secret"].as_str().context("no secret")?))
}

async fn snapshot(server: &Server, id: &str) -> anyhow::Result<String> {
    let taken = server.api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.success()?;
    Ok(taken["id"].as_str().context("a snapshot without an id")?.to_owned())
}

async fn destroy(api: &Api, id: &str) -> anyhow::Result<()> {
    api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204).map(drop)
}

fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).output().context("starting docker")?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap_or_default()
}

/// A server that may pull from a registry on loopback, with the logins of that file.
async fn server_with(runtime: Runtime, registry: &Registry, logins: String) -> anyhow::Result<Server> {
    let options = ServerOptions::on(runtime).with(LOGINS, logins).with(PRIVATE_REGISTRIES, registry.host());
    Server::start(options).await
}

async fn an_image_is_pulled_from_a_private_registry(runtime: Runtime) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let image = registry.publish(&format!("on-{}", runtime.name()))?;
    let server = server_with(runtime, &registry, registry.login_file(PASSWORD)?.display().to_string()).await?;

    // The image has one file and nothing else: no shell, no C library, no /etc.
    let id = server.api.create(json!({ "base_image": image })).await?;
    let read = server.api.tool(&id, "read", json!({ "file_path": "/from-the-registry" })).await?.success()?;
    ensure!(read["content"] == "1: yes", "{read}");
    server.api.tool(&id, "write", json!({ "file_path": "note", "content": "hay\nneedle\n" })).await?.success()?;
    let found = server.api.tool(&id, "grep", json!({ "pattern": "needle" })).await?.success()?;
    ensure!(found["matches"][0]["line_number"] == 2, "{found}");
    let bash = server.api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(422)?;
    ensure!(detail(&bash).contains("shell"), "{bash}");

    destroy(&server.api, &id).await?;
    server
        .engine
        .docker()
        .remove_image(&image, None::<RemoveImageOptions>, None)
        .await
        .context("removing the image")?;
    Ok(())
}

async fn a_wrong_login_is_said_and_kept_secret(runtime: Runtime) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let image = registry.publish(&format!("locked-{}", runtime.name()))?;
    let password = "not-the-password";
    let server = server_with(runtime, &registry, registry.login_file(password)?.display().to_string()).await?;

    let refused = server.api.post(WORKSPACES, json!({ "base_image": image })).await?.refusal(422)?;
    let detail = detail(&refused);
    ensure!(detail.contains(&image) && detail.contains(LOGINS), "{detail}");
    ensure!(!detail.contains(password) && !server.log().contains(password), "the password is shown");
    server.await_nothing_left().await
}

async fn an_image_that_is_not_allowed_is_refused(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with(ALLOWED, "emergent/*,ubuntu:*")).await?;
    let refused = server.api.post(WORKSPACES, json!({ "base_image": "debian:12" })).await?;
    ensure!(refused.status.is_client_error() && refused.body.to_string().contains("debian:12"), "{refused:?}");
    server.api.create_default().await.map(drop)
}

/// A workspace and a hosted server of another project are asked for under every name and id that the engine knows.
async fn no_reference_opens_a_snapshot(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "environment": { "TOKEN": "of-the-victim" } })).await?;
    server.api.bash(&id, "echo private > ~/private").await?;
    let snapshot = snapshot(&server, &id).await?;
    let name = format!("emergent-snapshot-{snapshot}");
    let image_id = docker(&["image", "inspect", "--format", "{{.Id}}", &name])?;
    let digits = image_id.strip_prefix("sha256:").context("no digest")?;
    // Somebody with access to the engine may give it another name; it stays a snapshot.
    let renamed = Image { reference: format!("emergent-test/renamed-snapshot-{}:1", runtime.name()) };
    docker(&["tag", &name, &renamed.reference])?;

    let stranger = another_project(&server).await?;
    let references = [
        name.clone(),
        format!("{name}:latest"),
        format!("docker.io/library/{name}"),
        format!("index.docker.io/library/{name}:latest"),
        format!("library/{name}"),
        image_id.clone(),
        digits.to_owned(),
        digits[..12].to_owned(),
        digits[..2].to_owned(),
        format!("{}:latest", &digits[..2]),
        renamed.reference.clone(),
        format!("docker.io/{}", renamed.reference),
    ];
    for reference in &references {
        for api in [&stranger, &server.api] {
            let made = api.post(WORKSPACES, json!({ "base_image": reference })).await?;
            ensure!(made.status.is_client_error(), "{reference}: {made:?}");
        }
        let hosted = json!({ "name": "peek", "image": reference, "cmd": ["cat", "/root/private"] });
        let hosted = stranger.post(SERVERS, hosted).await?;
        ensure!(hosted.status.is_client_error() || hosted.body["state"] != "running", "{reference}: {hosted:?}");
        drop(stranger.delete(&format!("{SERVERS}/peek")).await?);
    }
    let containers = docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={image_id}")])?;
    ensure!(containers.is_empty(), "made from the snapshot: {containers}");

    // In the project that it is of, it is used as it is meant to be.
    let copy = server.api.create(json!({ "snapshot_id": snapshot })).await?;
    ensure!(server.api.bash(&copy, "cat ~/private; echo $TOKEN").await? == "private\nof-the-victim\n");
    Ok(())
}

async fn no_secret_in_an_image(runtime: Runtime) -> anyhow::Result<()> {
    const SECRET: &str = "5ecret-of-the-environment";
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "environment": { "TOKEN": SECRET } })).await?;
    // What commands write is kept on the root file system: none of them writes it.
    ensure!(server.api.bash(&id, "echo ${#TOKEN}").await?.trim() == SECRET.len().to_string());
    // A copy of a copy has it too, and its image as little.
    let first = snapshot(&server, &id).await?;
    let copy = server.api.create(json!({ "snapshot_id": first })).await?;
    let second = snapshot(&server, &copy).await?;
    destroy(&server.api, &id).await?;
    destroy(&server.api, &copy).await?;
    let last = server.api.create(json!({ "snapshot_id": second, "environment": { "MORE": "too" } })).await?;
    server.api.post(&format!("{WORKSPACES}/{last}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{last}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&last, "echo $TOKEN $MORE").await?.trim() == format!("{SECRET} too"));
    for snapshot in [first, second] {
        let image = format!("emergent-snapshot-{snapshot}");
        let search =
            ["run", "--rm", "--network=none", "--entrypoint=grep", &image, "--recursive", "--files-with-matches"];
        let places = ["--", SECRET, "/var/lib", "/root", "/home", "/etc", "/tmp", "/run", "/workspace"];
        let found = Command::new("docker").args(search).args(places).output().context("starting docker")?;
        // 1 is grep's word for nothing found; 2 that a place cannot be read.
        ensure!(found.stdout.is_empty() && found.status.code() != Some(125), "{found:?}");
    }
    Ok(())
}

async fn local_images_need_the_operators_word(runtime: Runtime) -> anyhow::Result<()> {
    let image = Image::of_workspace(&format!("emergent-test/local-{}:1", runtime.name()))?;
    let mut server = Server::on(runtime).await?;
    for reference in [image.reference.clone(), format!("docker.io/{}", image.reference)] {
        let refused = server.api.post(WORKSPACES, json!({ "base_image": reference })).await?.refusal(422)?;
        ensure!(detail(&refused).contains(ALLOWED) && detail(&refused).contains(&image.reference), "{refused}");
        let hosted = json!({ "name": "local", "image": reference, "cmd": ["sleep", "1000"] });
        let hosted = server.api.post(SERVERS, hosted).await?;
        ensure!(hosted.body.to_string().contains(ALLOWED), "{hosted:?}");
        drop(server.api.delete(&format!("{SERVERS}/local")).await?);
    }
    server.terminate().await?;
    server.restart(|options| *options = options.clone().with(ALLOWED, "emergent-test/*")).await?;
    let id = server.api.create(json!({ "base_image": image.reference })).await?;
    ensure!(server.api.bash(&id, "echo here").await? == "here\n");
    Ok(())
}

async fn pulled_for_one_project(runtime: Runtime) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let image = registry.publish(&format!("private-{}", runtime.name()))?;
    let guard = Image { reference: image.clone() };
    let server = server_with(runtime, &registry, registry.login_file_of("default")?.display().to_string()).await?;
    let id = server.api.create(json!({ "base_image": image })).await?;

    let stranger = another_project(&server).await?;
    let refused = stranger.post(WORKSPACES, json!({ "base_image": image })).await?.refusal(422)?;
    ensure!(detail(&refused).contains(LOGINS), "{refused}");

    // What it is made from is what was pulled, whatever the name has come to stand for.
    let container = |id: String| async move {
        let docker = server_engine().await?;
        let found = docker.inspect_container(&format!("emergent-{id}"), None::<InspectContainerOptions>).await?;
        found.image.context("no image")
    };
    let pulled = container(id.clone()).await?;
    docker(&["tag", "emergent/workspace:latest", &image])?;
    let again = server.api.create(json!({ "base_image": image })).await?;
    ensure!(container(again).await? == pulled, "an image that was put in its place was taken");
    // Without its registry the project has it still.
    drop(registry);
    server.api.create(json!({ "base_image": image })).await?;
    drop(guard);
    Ok(())
}

async fn server_engine() -> anyhow::Result<bollard::Docker> {
    Ok(emergent_live_tests::Engine::connect()?.docker().clone())
}

async fn unused_images_go(runtime: Runtime) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let image = registry.publish(&format!("unused-{}", runtime.name()))?;
    let _guard = Image { reference: image.clone() };
    let local = Image::of_workspace(&format!("emergent-test/stays-{}:1", runtime.name()))?;
    let logins = registry.login_file(PASSWORD)?.display().to_string();
    let mut server = server_with(runtime, &registry, logins).await?;
    let id = server.api.create(json!({ "base_image": image })).await?;
    let is_there = |reference: &str| docker(&["image", "inspect", "--format", "{{.Id}}", reference]).is_ok();

    // A workspace uses it: it stays, however long ago that was made.
    let retention = |options: &mut ServerOptions| {
        *options = options.clone().with("WORKSPACE_PULLED_IMAGE_RETENTION_DAYS", "0.00001").with(ALLOWED, "**");
    };
    server.terminate().await?;
    server.restart(retention).await?;
    server.api.tool(&id, "read", json!({ "file_path": "/from-the-registry" })).await?.success()?;
    ensure!(is_there(&image), "an image in use was removed");

    // Also one of the engine's own is used, and stays when it is not used any more.
    let other = server.api.create(json!({ "base_image": local.reference })).await?;
    destroy(&server.api, &other).await?;
    destroy(&server.api, &id).await?;
    server.terminate().await?;
    server.restart(|_| {}).await?;
    until("the image that nobody uses is removed", Duration::from_secs(60), || async {
        Ok(if is_there(&image) { Err("it is there".to_owned()) } else { Ok(()) })
    })
    .await?;
    ensure!(is_there(&local.reference) && is_there("emergent/workspace:latest"), "too much was removed");
    Ok(())
}

async fn private_registries(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    for host in ["127.0.0.1", "localhost", "10.255.255.1", "169.254.169.254"] {
        let image = format!("{host}:{port}/a/b:1");
        let refused = server.api.post(WORKSPACES, json!({ "base_image": image })).await?.refusal(422)?;
        ensure!(detail(&refused).contains(PRIVATE_REGISTRIES), "{refused}");
        let hosted = json!({ "name": "peek", "image": image, "cmd": ["true"] });
        let hosted = server.api.post(SERVERS, hosted).await?;
        ensure!(hosted.body.to_string().contains(PRIVATE_REGISTRIES), "{hosted:?}");
        drop(server.api.delete(&format!("{SERVERS}/peek")).await?);
    }
    let reached = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await;
    ensure!(reached.is_err(), "the engine was sent there");
    Ok(())
}

async fn volumes_of_an_image(runtime: Runtime) -> anyhow::Result<()> {
    let lines =
        "RUN mkdir /data && echo seed > /data/seed && chmod 777 /data\nVOLUME /data\nVOLUME [\"/var/lib/rows\"]";
    let image = Image::with(&format!("emergent-test/volumes-{}:1", runtime.name()), lines)?;
    let options = ServerOptions::on(runtime).with(ALLOWED, "emergent-test/*").with("WORKSPACE_USAGE_INTERVAL_SEC", "1");
    let server = Server::start(options).await?;
    let id = server.api.create(json!({ "base_image": image.reference, "allow_root": true })).await?;
    ensure!(server.api.bash(&id, "cat /data/seed && echo rows > /data/rows").await? == "seed\n");
    ensure!(server.engine.resources_of(&id).await?.len() == PARTS + 2, "each has a volume with our labels");
    let anonymous = server.engine.inspect(&id).await?.mounts.unwrap_or_default();
    let ours = |name: Option<String>| name.is_some_and(|name| name.starts_with("emergent-"));
    ensure!(anonymous.into_iter().all(|mount| ours(mount.name)), "the engine made a volume without a name");

    server.api.bash(&id, "head -c 20000000 /dev/zero > /data/large").await?;
    until("what is in a volume counts", Duration::from_secs(60), || async {
        let usage = server.api.get(&format!("{WORKSPACES}/{id}/usage")).await?.success()?;
        let counted = usage["volume_bytes"].as_u64().unwrap_or(0);
        Ok(if counted > 19_000_000 { Ok(()) } else { Err(usage.to_string()) })
    })
    .await?;
    server.api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&id, "cat /data/rows").await? == "rows\n");

    let snapshot = snapshot(&server, &id).await?;
    let shown = server.api.get(&format!("{SNAPSHOTS}/{snapshot}")).await?.success()?;
    ensure!(shown["root_bytes"].as_u64().is_some_and(|bytes| bytes > 19_000_000), "{shown}");
    server.api.bash(&id, "rm /data/seed && echo changed > /data/rows").await?;
    let forked = server.api.post(&format!("{WORKSPACES}/{id}/fork"), json!({})).await?.success()?;
    let fork = forked["items"][0]["id"].as_str().context("no copy")?.to_owned();
    destroy(&server.api, &id).await?;
    let copy = server.api.create(json!({ "snapshot_id": snapshot })).await?;
    ensure!(server.api.bash(&copy, "cat /data/seed /data/rows").await? == "seed\nrows\n");
    // What was removed does not come back from the image.
    ensure!(server.api.bash(&fork, "cat /data/rows; ls /data").await? == "changed\nlarge\nrows\n");
    for id in [&copy, &fork] {
        destroy(&server.api, id).await?;
        ensure!(server.engine.resources_of(id).await?.is_empty(), "a volume was left");
    }
    server.api.delete(&format!("{SNAPSHOTS}/{snapshot}")).await?.refusal(204)?;
    server.await_nothing_left().await
}

async fn tmp_is_kept(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo kept > /tmp/file; echo kept > /var/tmp/file").await?;
    server.api.bash(&id, "rm -rf /tmp/* && echo kept > /tmp/file && find /tmp -maxdepth 0 -perm 1777").await?;
    for _ in 0..2 {
        server.api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
        server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
        ensure!(server.api.bash(&id, "cat /tmp/file /var/tmp/file").await? == "kept\nkept\n", "lost by a stop");
    }
    let forked = server.api.post(&format!("{WORKSPACES}/{id}/fork"), json!({})).await?.success()?;
    let fork = forked["items"][0]["id"].as_str().context("no copy")?;
    ensure!(server.api.bash(fork, "cat /tmp/file && touch /tmp/new").await? == "kept\n", "not in a copy");
    Ok(())
}
