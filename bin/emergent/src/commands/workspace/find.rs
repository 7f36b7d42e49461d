//! Which workspace is meant.

use emergent_api::resources::workspaces::{
    WorkspaceList,
    view::{State, WorkspaceView},
};
use uuid::Uuid;

use crate::client::{Client, ClientError};

/// Where workspaces are in the API.
pub(crate) const WORKSPACES: &str = "/api/v1/agent/workspaces";

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
    let mut workspaces = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: WorkspaceList = client.get_with(WORKSPACES, &query).await?;
        workspaces.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(workspaces);
        }
    }
}

/// A name goes before the beginning of an id.
fn choose(workspaces: &[WorkspaceView], given: &str) -> Result<Uuid, ClientError> {
    let named: Vec<_> = workspaces.iter().filter(|workspace| workspace.name.as_deref() == Some(given)).collect();
    // One that could not be made gives its name up to the one that was made after it.
    let was_made = |workspace: &&&WorkspaceView| workspace.ready_at.is_some() || workspace.state != State::Error;
    let made: Vec<_> = named.iter().filter(was_made).copied().collect();
    let named = if made.is_empty() { named } else { made };
    let prefix = given.to_ascii_lowercase();
    let found = if named.is_empty() {
        workspaces.iter().filter(|workspace| workspace.id.to_string().starts_with(&prefix)).collect()
    } else {
        named
    };
    match found.as_slice() {
        [only] => Ok(only.id),
        [] => Err(ClientError::NoSuchWorkspace(given.to_owned())),
        several => {
            let candidates = several.iter().take(5).map(|workspace| workspace.id.to_string()).collect();
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
