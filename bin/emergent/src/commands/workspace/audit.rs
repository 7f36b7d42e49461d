//! `emergent workspace audit`.

use emergent_api::resources::audit::{AuditList, AuditView};
use serde_json::Value;

use super::find::{self, WORKSPACES};
use crate::{
    cli::AuditArgs,
    client::{Client, ClientError, MOST_PAGES},
    print,
};

/// The number of entries that are requested at once.
const PAGE: usize = 200;

/// Runs the command.
pub(super) async fn run(client: &Client, which: &AuditArgs, json: bool) -> Result<(), ClientError> {
    let path = match &which.workspace {
        Some(given) => format!("{WORKSPACES}/{}/audit", find::workspace(client, given).await?),
        None => "/api/v1/agent/audit".to_owned(),
    };
    let list = rows(client, &path, which).await?;
    if json {
        print::json(&list)
    } else {
        show(&list.items, which.workspace.is_none())
    }
    Ok(())
}

async fn rows(client: &Client, path: &str, which: &AuditArgs) -> Result<AuditList, ClientError> {
    let AuditArgs { kind, action, outcome, session, since, until, .. } = which;
    let given = [
        ("kind", kind),
        ("action", action),
        ("outcome", outcome),
        ("session", session),
        ("since", since),
        ("until", until),
    ];
    let filter: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let mut list = AuditList { items: Vec::new(), next_cursor: None };
    for _ in 0..MOST_PAGES {
        let limit = which.limit.saturating_sub(list.items.len()).min(PAGE).to_string();
        let mut query = filter.clone();
        query.push(("limit", &limit));
        query.extend(list.next_cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: AuditList = client.get_with(path, &query).await?;
        list.items.extend(page.items);
        list.next_cursor = page.next_cursor;
        if list.next_cursor.is_none() || list.items.len() >= which.limit {
            return Ok(list);
        }
    }
    Err(ClientError::EndlessList)
}

fn show(rows: &[AuditView], of_all: bool) {
    let line = |row: &AuditView| {
        let workspace = row.workspace_id.map(|id| id.to_string()).unwrap_or_default();
        let ended = match &row.problem {
            Some(problem) => format!("{} ({problem})", row.outcome.as_str()),
            None => row.outcome.as_str().to_owned(),
        };
        let at = row.at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
        let took = format!("{} ms", row.duration_ms);
        (workspace, [at, row.action.clone(), ended, took, row.actor.clone(), arguments(row)])
    };
    let lines = rows.iter().map(line);
    if of_all {
        let header = ["at", "action", "outcome", "took", "actor", "arguments", "workspace"];
        print::table(
            header,
            lines.map(|(id, [at, action, ended, took, actor, arguments])| {
                [at, action, ended, took, actor, arguments, id]
            }),
        );
    } else {
        print::table(["at", "action", "outcome", "took", "actor", "arguments"], lines.map(|(_, line)| line));
    }
}

fn arguments(row: &AuditView) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs: Vec<_> = row.arguments.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    pairs.join(" ")
}
