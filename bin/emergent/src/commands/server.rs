//! `emergent server …`.

use emergent_api::resources::{
    leftovers::{AdoptLeftover, AdoptedView, LeftoverList, LeftoverView},
    servers::{ServerList, ServerView},
};

use crate::{
    cli::{AdoptArgs, ServerCommand, WithServer},
    client::{Client, ClientError},
    print,
};

const SERVERS: &str = "/api/v1/admin/servers";
const DRAIN: &str = "/api/v1/admin/drain";
const LEFTOVERS: &str = "/api/v1/admin/leftovers";

/// Runs the command.
pub(super) async fn run(arguments: WithServer<ServerCommand>) -> Result<(), ClientError> {
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    match arguments.command {
        ServerCommand::Ls => {
            let servers: ServerList = client.get(SERVERS).await?;
            if json { print::json(&servers) } else { show(&servers.items) }
        }
        ServerCommand::Drain => {
            tell(&client.post_nothing(DRAIN).await?, json, "is draining: it takes no new workspaces")
        }
        ServerCommand::Undrain => tell(&client.delete_answered(DRAIN).await?, json, "takes new workspaces"),
        ServerCommand::Leftovers => {
            let leftovers: LeftoverList = client.get(LEFTOVERS).await?;
            if json { print::json(&leftovers) } else { show_leftovers(&leftovers.items) }
        }
        ServerCommand::Adopt(AdoptArgs { id, project, name }) => {
            let request = AdoptLeftover { project, name };
            let adopted: AdoptedView = client.post(&format!("{LEFTOVERS}/{id}/adopt"), &request).await?;
            if json {
                print::json(&adopted);
            } else {
                print::line(&format!("{} is a {} again", adopted.id, adopted.kind));
            }
        }
        ServerCommand::RemoveLeftover { id } => {
            client.delete(&format!("{LEFTOVERS}/{id}")).await?;
            if !json {
                print::line(&format!("{id} is removed"));
            }
        }
    }
    Ok(())
}

fn tell(server: &ServerView, json: bool, what: &str) {
    if json { print::json(server) } else { print::line(&format!("{} {what}", server.id)) }
}

fn show(servers: &[ServerView]) {
    print::table(
        ["id", "name", "url", "state", "since"],
        servers.iter().map(|server| {
            let state = match (server.alive, server.draining) {
                (false, _) => "dead",
                (true, true) => "draining",
                (true, false) => "alive",
            };
            let this = if server.this { " (this one)" } else { "" };
            [
                server.id.to_string(),
                server.name.clone().unwrap_or_default(),
                server.url.clone().unwrap_or_default(),
                format!("{state}{this}"),
                server.created_at.format("%Y-%m-%d %H:%M").to_string(),
            ]
        }),
    );
}

fn show_leftovers(leftovers: &[LeftoverView]) {
    print::table(
        ["id", "kind", "provider", "made", "found", "removed after"],
        leftovers.iter().map(|leftover| {
            [
                leftover.id.to_string(),
                leftover.kind.clone(),
                leftover.provider.clone(),
                leftover.made_at.format("%Y-%m-%d %H:%M").to_string(),
                leftover.found_at.format("%Y-%m-%d %H:%M").to_string(),
                leftover.removed_at.format("%Y-%m-%d %H:%M").to_string(),
            ]
        }),
    );
}
