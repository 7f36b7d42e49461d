//! Finds the workspace or snapshot that an argument names.

use emergent_api::resources::{
    snapshots::{SnapshotList, view::SnapshotView},
    workspaces::{
        WorkspaceList,
        view::{State, WorkspaceView},
    },
};
use uuid::Uuid;

use crate::client::{Client, ClientError};

/// The path of workspaces in the API.
pub(crate) const WORKSPACES: &str = "/api/v1/agent/workspaces";

/// The path of snapshots in the API.
pub(crate) const SNAPSHOTS: &str = "/api/v1/agent/snapshots";

/// The workspace that is meant by an id, the beginning of an id, or a name. A whole id is not looked up: the call that
/// follows tells whether it is there.
pub(crate) async fn workspace(client: &Client, given: &str) -> Result<Uuid, ClientError> {
    if let Ok(id) = Uuid::try_parse(given) {
        return Ok(id);
    }
    let workspaces = all(client, &[("limit", "200")]).await?;
    choose(&workspaces, given)
}

/// All workspaces that a query finds, over all pages.
pub(super) async fn all(client: &Client, query: &[(&str, &str)]) -> Result<Vec<WorkspaceView>, ClientError> {
    client.get_all(WORKSPACES, query, |page: WorkspaceList| (page.items, page.next_cursor)).await
}

/// The snapshot that is meant by an id, the beginning of an id, or a name. A whole id is not looked up.
pub(crate) async fn snapshot(client: &Client, given: &str) -> Result<Uuid, ClientError> {
    if let Ok(id) = Uuid::try_parse(given) {
        return Ok(id);
    }
    let snapshots = all_snapshots(client, &[("limit", "200")]).await?;
    let known: Vec<_> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot.name.as_deref())).collect();
    choose_among(&known, given, || ClientError::NoSuchSnapshot(given.to_owned()))
}

/// All snapshots that a query finds, over all pages.
pub(crate) async fn all_snapshots(client: &Client, query: &[(&str, &str)]) -> Result<Vec<SnapshotView>, ClientError> {
    client.get_all(SNAPSHOTS, query, |page: SnapshotList| (page.items, page.next_cursor)).await
}

fn choose(workspaces: &[WorkspaceView], given: &str) -> Result<Uuid, ClientError> {
    let named: Vec<_> = workspaces.iter().filter(|workspace| workspace.name.as_deref() == Some(given)).collect();
    // One that could not be made gives its name up to the one that was made after it.
    let was_made = |workspace: &&&WorkspaceView| workspace.ready_at.is_some() || workspace.state != State::Error;
    let made: Vec<_> = named.iter().filter(was_made).copied().collect();
    if let [only] = made.as_slice() {
        return Ok(only.id);
    }
    let known: Vec<_> = workspaces.iter().map(|workspace| (workspace.id, workspace.name.as_deref())).collect();
    choose_among(&known, given, || ClientError::NoSuchWorkspace(given.to_owned()))
}

/// A name goes before the beginning of an id.
fn choose_among(
    known: &[(Uuid, Option<&str>)],
    given: &str,
    none: impl FnOnce() -> ClientError,
) -> Result<Uuid, ClientError> {
    let named: Vec<_> = known.iter().filter(|(_, name)| *name == Some(given)).collect();
    let prefix = given.to_ascii_lowercase();
    let found = match named.as_slice() {
        [] => known.iter().filter(|(id, _)| id.to_string().starts_with(&prefix)).collect(),
        _ => named,
    };
    match found.as_slice() {
        [(only, _)] => Ok(*only),
        [] => Err(none()),
        several => {
            let candidates = several.iter().take(5).map(|(id, _)| id.to_string()).collect();
            Err(ClientError::Ambiguous { given: given.to_owned(), candidates })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(id: &str, name: Option<&str>) -> WorkspaceView {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": name, "labels": {}, "container_type": "agent_workspace", "state": "ready",
            "provider": "gvisor", "provider_requested": null, "runtime": null, "isolation": null, "base_image": "i",
            "resource_limits": { "cpu": 1.0, "memory": 1, "disk": 1, "pids": 1 }, "network": "none",
            "allow_root": false, "warnings": [], "created_at": "2026-01-01T00:00:00Z", "ready_at": null,
            "ready_in_ms": null, "last_used_at": null, "expires_at": null,
            "idle": { "action": "none", "after_minutes": 30.0, "resting": false }, "attached": null
        }))
        .unwrap()
    }

    #[test]
    fn snapshots_of_one_name_are_told_apart_by_their_ids() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let none = || ClientError::NoSuchSnapshot(String::new());
        let Err(error) = choose_among(&[(one, Some("nightly")), (two, Some("nightly"))], "nightly", none) else {
            panic!("one of two was chosen");
        };
        let message = error.to_string();
        assert!(message.contains(&one.to_string()) && message.contains(&two.to_string()), "{message}");
        assert_eq!(choose_among(&[(one, Some("nightly")), (two, None)], "nightly", none).unwrap(), one);
    }

    #[test]
    fn a_name_or_an_unambiguous_beginning_names_a_workspace() {
        let first = "01990000-0000-7000-8000-000000000001";
        let second = "01990000-0000-7000-8000-000000000002";
        let third = "02990000-0000-7000-8000-000000000003";
        let workspaces = [workspace(first, Some("try")), workspace(second, Some("019")), workspace(third, None)];
        assert_eq!(choose(&workspaces, "try").unwrap().to_string(), first);
        assert_eq!(choose(&workspaces, "019").unwrap().to_string(), second);
        assert_eq!(choose(&workspaces, "02").unwrap().to_string(), third);
        assert!(matches!(choose(&workspaces, "0199"), Err(ClientError::Ambiguous { .. })));
        assert!(matches!(choose(&workspaces, "nothing"), Err(ClientError::NoSuchWorkspace(_))));
    }
}
