//! `emergent workspace fork`.

use emergent_api::resources::{
    snapshots::{ForkList, request::ForkWorkspace},
    workspaces::view::WorkspaceView,
};
use reqwest::Method;

use super::{create::not_ready, find, find::WORKSPACES, report, show};
use crate::{
    cli::ForkArgs,
    client::{Client, ClientError},
    commands::ended,
    exit::ExitStatus,
    print,
};

/// Makes the copies, waits for them, and prints their ids; a failed copy does not hide the others.
pub(super) async fn run(client: &Client, arguments: &ForkArgs, json: bool) -> ExitStatus {
    let progress = print::spinner("copying the workspace");
    let made = make(client, arguments).await;
    progress.finish_and_clear();
    let copies = match made {
        Ok(copies) => copies,
        Err(error) => return ended(Err(error)),
    };
    if json {
        print::json(&copies);
    }
    let (failed, made): (Vec<_>, Vec<_>) = copies.items.iter().partition(|copy| copy.error.is_some());
    if !json {
        for copy in made {
            show::warnings(copy);
            print::line(&copy.id.to_string());
        }
    }
    let reason = |copy: &&WorkspaceView| {
        not_ready(copy, copy.error.as_ref().map(|fault| fault.message.clone()).unwrap_or_default())
    };
    report(failed.iter().map(reason))
}

async fn make(client: &Client, arguments: &ForkArgs) -> Result<ForkList, ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let body = ForkWorkspace {
        count: arguments.count,
        name: arguments.name.clone(),
        labels: arguments.label.iter().cloned().collect(),
        environment: arguments.env.iter().cloned().collect(),
        ttl_days: arguments.ttl_days,
        ..ForkWorkspace::default()
    };
    let request = client.request(Method::POST, &format!("{WORKSPACES}/{id}/fork"))?;
    client.answer(request.query(&[("wait_seconds", arguments.wait)]).json(&body)).await
}
