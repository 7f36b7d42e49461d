//! Two installations on one Docker host that know nothing of each other.

use std::time::Duration;

use anyhow::ensure;
use chrono::Utc;
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, until};

/// The age at which a sandbox may be taken for an orphan, and the time of one more look.
const PAST_GRACE: Duration = Duration::from_secs(65);

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("two_installations_on_one_engine_leave_each_others_workspaces_alone", apart)]
}

async fn apart(runtime: Runtime) -> anyhow::Result<()> {
    let (mut first, mut second) = (Server::on(runtime).await?, Server::on(runtime).await?);
    let theirs = first.api.create_default().await?;
    first.api.bash(&theirs, "echo kept > file").await?;
    // Dead for as long as it takes: what it has looks as abandoned as it ever will.
    first.kill()?;
    let made = Utc::now();
    until("the grace period is over", PAST_GRACE * 2, || async {
        let age = (Utc::now() - made).to_std().unwrap_or_default();
        Ok(if age > PAST_GRACE { Ok(()) } else { Err(format!("{age:?}")) })
    })
    .await?;
    second.terminate().await?;
    second.restart(|_| {}).await?;
    // A create and a destroy of its own come after its look at everything.
    let own = second.api.create_default().await?;
    second.api.delete(&format!("{WORKSPACES}/{own}")).await?.refusal(204)?;
    second.await_nothing_left().await?;
    ensure!(second.api.get(&format!("{WORKSPACES}/{theirs}")).await?.status == 404, "it sees the other's");
    first.restart(|_| {}).await?;
    ensure!(first.api.bash(&theirs, "cat file").await? == "kept\n");
    first.api.delete(&format!("{WORKSPACES}/{theirs}")).await?.refusal(204)?;
    first.await_nothing_left().await
}
