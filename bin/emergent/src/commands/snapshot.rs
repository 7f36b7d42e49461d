//! `emergent snapshot …`.

use chrono::Utc;
use emergent_api::{
    http::size::ByteSize,
    resources::snapshots::{
        SnapshotList,
        request::CreateSnapshot,
        view::{SnapshotState, SnapshotView},
    },
};
use reqwest::Method;

use crate::{
    cli::{SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs, WithServer},
    client::{Client, ClientError},
    commands::{
        ended,
        workspace::{
            find::{self, SNAPSHOTS, WORKSPACES},
            report,
            show::span,
        },
    },
    exit::ExitStatus,
    print,
};

/// Does it.
pub(super) async fn run(arguments: WithServer<SnapshotCommand>) -> ExitStatus {
    let json = arguments.client.json;
    let client = match Client::new(&arguments.client) {
        Ok(client) => client,
        Err(error) => return ended(Err(error)),
    };
    match arguments.command {
        SnapshotCommand::Create(new) => ended(create(&client, &new, json).await),
        SnapshotCommand::Ls(list) => ended(ls(&client, &list, json).await),
        SnapshotCommand::Rm { snapshots } => remove(&client, &snapshots, json).await,
    }
}

async fn create(client: &Client, new: &SnapshotCreateArgs, json: bool) -> Result<(), ClientError> {
    let id = find::workspace(client, &new.workspace).await?;
    let labels = (!new.label.is_empty()).then(|| new.label.iter().cloned().collect());
    let body = CreateSnapshot { name: new.name.clone(), labels };
    let request = client.request(Method::POST, &format!("{WORKSPACES}/{id}/snapshots"))?;
    let progress = print::spinner("taking the snapshot");
    let taken = client.answer::<SnapshotView>(request.query(&[("wait_seconds", new.wait)]).json(&body)).await;
    progress.finish_and_clear();
    let snapshot = taken?;
    if json {
        print::json(&snapshot);
    } else {
        if snapshot.state == SnapshotState::Creating {
            print::notice("still being taken; `emergent snapshot ls` tells when it is ready\n");
        }
        print::line(&snapshot.id.to_string());
    }
    Ok(())
}

async fn ls(client: &Client, list: &SnapshotListArgs, json: bool) -> Result<(), ClientError> {
    let workspace = match &list.workspace {
        Some(given) => Some(find::workspace(client, given).await?.to_string()),
        None => None,
    };
    let label = list.label.as_ref().map(|(key, value)| format!("{key}:{value}"));
    let mut query = vec![("limit", "200")];
    let given = [("workspace_id", &workspace), ("name", &list.name), ("label", &label)];
    query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    let snapshots = find::all_snapshots(client, &query).await?;
    if json {
        print::json(&SnapshotList { items: snapshots, next_cursor: None });
    } else if list.quiet {
        snapshots.iter().for_each(|snapshot| print::line(&snapshot.id.to_string()));
    } else {
        table(&snapshots);
    }
    Ok(())
}

fn table(snapshots: &[SnapshotView]) {
    let size = |bytes: Option<u64>| bytes.map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default();
    print::table(
        ["id", "name", "state", "workspace", "image", "/workspace", "outside", "created"],
        snapshots.iter().map(|snapshot| {
            [
                snapshot.id.to_string(),
                snapshot.name.clone().unwrap_or_default(),
                snapshot.state.as_str().to_owned(),
                snapshot.workspace_id.to_string(),
                snapshot.base_image.clone(),
                size(snapshot.workspace_bytes),
                size(snapshot.root_bytes),
                format!("{} ago", span(Utc::now() - snapshot.created_at)),
            ]
        }),
    );
}

/// Deletes snapshots; one that fails does not keep the others from it.
async fn remove(client: &Client, which: &[String], json: bool) -> ExitStatus {
    let progress = print::spinner("deleting");
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for given in which {
        let deleted = async {
            let id = find::snapshot(client, given).await?;
            client.delete(&format!("{SNAPSHOTS}/{id}")).await.map(|()| id)
        };
        match deleted.await {
            Ok(id) => done.push(id),
            Err(error) => failed.push(error),
        }
    }
    progress.finish_and_clear();
    if json {
        print::json(&serde_json::json!({ "removed": done }));
    } else {
        done.iter().for_each(|id| print::line(&format!("{id} removed")));
    }
    report(failed.into_iter())
}
