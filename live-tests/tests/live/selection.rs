//! The choice of a workspace's provider, and the error when none can make it: with engines and images that really fail.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Image, Runtime, Server, ServerOptions, api::WORKSPACES};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("without_docker_every_provider_says_why", without_docker_every_provider_says_why),
        Case::new("an_image_that_cannot_start_blames_nobody_else", an_image_that_cannot_start_blames_nobody_else),
        Case::new("automatic_choice_records_what_it_passed_over", automatic_choice_records_what_it_passed_over),
    ]
}

async fn without_docker_every_provider_says_why(runtime: Runtime) -> anyhow::Result<()> {
    let options = ServerOptions::on(runtime)
        .with("WORKSPACE_DEFAULT_PROVIDER", "auto")
        .with("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let server = Server::start(options).await?;
    let refused = server.api.post(WORKSPACES, json!({})).await?.refusal(503)?;
    let detail = refused["detail"].as_str().context("no detail")?;
    for provider in ["gvisor: ", "firecracker: ", "e2b: "] {
        ensure!(detail.contains(provider), "{detail}");
    }
    ensure!(detail.contains("/nowhere/docker.sock"), "{detail}");
    let named = server.api.post(WORKSPACES, json!({ "provider": "gvisor" })).await?.refusal(503)?;
    ensure!(named["detail"].as_str().is_some_and(|detail| !detail.contains("e2b")), "{named}");
    let listed = server.api.get(WORKSPACES).await?.success()?;
    ensure!(listed["items"] == json!([]), "{listed}");
    Ok(())
}

async fn an_image_that_cannot_start_blames_nobody_else(runtime: Runtime) -> anyhow::Result<()> {
    let image = Image::that_cannot_start(&format!("emergent-test/in-the-way-{}:1", runtime.name()))?;
    let options = ServerOptions::on(runtime)
        .with("WORKSPACE_DEFAULT_PROVIDER", "auto")
        .with("WORKSPACE_ALLOWED_IMAGES", "emergent-test/*");
    let server = Server::start(options).await?;
    let refused = server.api.post(WORKSPACES, json!({ "base_image": image.reference })).await?.refusal(422)?;
    let detail = refused["detail"].as_str().context("no detail")?;
    for provider in ["gvisor: ", "firecracker: ", "e2b: "] {
        ensure!(detail.contains(provider), "{detail}");
    }
    ensure!(detail.contains(&image.reference), "{detail}");
    // The next request does not pay for it.
    server.api.create_default().await?;
    let providers = server.api.get(&format!("{WORKSPACES}/providers")).await?.success()?;
    let gvisor = providers["items"].as_array().and_then(|items| items.iter().find(|it| it["provider"] == "gvisor"));
    ensure!(gvisor.is_some_and(|it| it["healthy"] == true && it["quarantine"].is_null()), "{providers}");
    Ok(())
}

async fn automatic_choice_records_what_it_passed_over(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_DEFAULT_PROVIDER", "auto")).await?;
    let workspace = server.api.post(WORKSPACES, json!({})).await?.success()?;
    ensure!(workspace["provider"] == "gvisor" && workspace["provider_requested"].is_null(), "{workspace}");
    ensure!(workspace["passed_over"][0]["provider"] == "firecracker", "{workspace}");
    ensure!(workspace["passed_over"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{workspace}");
    let named = server.api.post(WORKSPACES, json!({ "provider": "gvisor" })).await?.success()?;
    ensure!(named["provider_requested"] == "gvisor" && named["passed_over"].is_null(), "{named}");
    let strong = json!({ "requirements": { "isolation": "hardware" } });
    let unmet = server.api.post(WORKSPACES, strong).await?.refusal(422)?;
    ensure!(unmet["detail"].as_str().is_some_and(|detail| detail.contains("isolation")), "{unmet}");
    Ok(())
}
