//! Requests that there is no room for are refused, with the reason.

use anyhow::ensure;
use emergent_live_tests::{Case, Manager, manager::small};
use futures::future::join_all;
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("of_twenty_creates_at_once_as_many_succeed_as_there_is_room_for", |_| twenty()),
        Case::new("memory_that_is_used_up_is_503", |_| memory()),
    ]
}

async fn twenty() -> anyhow::Result<()> {
    let manager = Manager::start(&[("FIRECRACKER_MAX_RUNNING", "3")]).await?;
    let results = join_all((0..20).map(|_| manager.call("POST /sandboxes", Some(small())))).await;
    let results = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let made: Vec<_> = results.iter().filter(|(status, _)| *status == 201).collect();
    let refused = results.iter().filter(|(status, body)| *status == 503 && body["detail"].is_string()).count();
    ensure!((made.len(), refused) == (3, 17), "{results:?}\n{}", manager.log());
    ensure!(manager.names("sandboxes")?.len() == 3);
    for (_, sandbox) in made {
        let id = sandbox["sandbox_id"].as_str().unwrap_or_default();
        ensure!(manager.run(id, "echo here").await? == "here");
    }
    Ok(())
}

async fn memory() -> anyhow::Result<()> {
    let manager = Manager::start(&[("FIRECRACKER_MEMORY_MB", "600")]).await?;
    let id = manager.create().await?;
    let mut large = small();
    large["memory_mb"] = json!(512);
    let (status, refused) = manager.call("POST /sandboxes", Some(large.clone())).await?;
    ensure!(status == 503 && refused["detail"].as_str().is_some_and(|detail| detail.contains("MiB")), "{refused}");
    manager.done(&format!("POST /sandboxes/{id}/pause"), None).await?;
    manager.done("POST /sandboxes", Some(large)).await?;
    let (status, _) = manager.call(&format!("POST /sandboxes/{id}/resume"), None).await?;
    ensure!(status == 503 && manager.status(&id).await? == "paused");
    Ok(())
}
