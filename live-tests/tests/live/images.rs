//! Images: from a private registry, without a shell, and refused.

use anyhow::{Context as _, ensure};
use bollard::query_parameters::RemoveImageOptions;
use emergent_live_tests::{
    Case, Runtime, Server, ServerOptions,
    api::WORKSPACES,
    registry::{PASSWORD, Registry},
};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("an_image_is_pulled_from_a_private_registry", an_image_is_pulled_from_a_private_registry),
        Case::new("a_wrong_login_is_said_and_kept_secret", a_wrong_login_is_said_and_kept_secret),
        Case::new("an_image_that_is_not_allowed_is_refused", an_image_that_is_not_allowed_is_refused),
    ]
}

async fn an_image_is_pulled_from_a_private_registry(runtime: Runtime) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let image = registry.publish(&format!("on-{}", runtime.name()))?;
    let logins = registry.login_file(PASSWORD)?.display().to_string();
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_REGISTRY_AUTH_FILE", logins)).await?;

    // The image has one file and nothing else: no shell, no C library, no /etc.
    let id = server.api.create(json!({ "base_image": image })).await?;
    let read = server.api.tool(&id, "read", json!({ "file_path": "/from-the-registry" })).await?.success()?;
    ensure!(read["content"] == "1: yes", "{read}");
    server.api.tool(&id, "write", json!({ "file_path": "note", "content": "hay\nneedle\n" })).await?.success()?;
    let found = server.api.tool(&id, "grep", json!({ "pattern": "needle" })).await?.success()?;
    ensure!(found["matches"][0]["line_number"] == 2, "{found}");
    let bash = server.api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(422)?;
    ensure!(bash["detail"].as_str().is_some_and(|detail| detail.contains("shell")), "{bash}");

    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
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
    let logins = registry.login_file(password)?.display().to_string();
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_REGISTRY_AUTH_FILE", logins)).await?;

    let refused = server.api.post(WORKSPACES, json!({ "base_image": image })).await?.refusal(422)?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains(&image) && detail.contains("WORKSPACE_REGISTRY_AUTH_FILE"), "{detail}");
    ensure!(!detail.contains(password) && !server.log().contains(password), "the password is shown");
    server.await_nothing_left().await
}

async fn an_image_that_is_not_allowed_is_refused(runtime: Runtime) -> anyhow::Result<()> {
    let options = ServerOptions::on(runtime).with("WORKSPACE_ALLOWED_IMAGES", "emergent/*,ubuntu:*");
    let server = Server::start(options).await?;
    let refused = server.api.post(WORKSPACES, json!({ "base_image": "debian:12" })).await?;
    ensure!(refused.status.is_client_error() && refused.body.to_string().contains("debian:12"), "{refused:?}");
    server.api.create_default().await.map(drop)
}
