//! The calls that the audit records, with their names in the audit, both taken from the OpenAPI document.

use std::{collections::HashMap, sync::Arc};

use axum::http::Method;
use emergent_core::AuditKind;
use utoipa::openapi::{OpenApi, PathItem, path::Operation};

/// The prefix of all routes that have to do with workspaces.
const AGENT: &str = "/api/v1/agent/";
/// The prefix of the routes of hosted MCP servers.
const MCP: &str = "/api/v1/mcp/";
/// The prefix of the routes of workspaces.
pub(super) const WORKSPACES: &str = "/api/v1/agent/workspaces";
/// The tags of the groups of calls that reach into a workspace.
const TOOLS: [&str; 3] = ["tools", "processes", "files"];

/// The calls that the audit records, by method and route.
pub(super) struct Actions(HashMap<(Method, String), (AuditKind, Arc<str>)>);

// === impl Actions ===

impl Actions {
    /// Collects every call of a tool, and every other call that changes a workspace.
    pub(super) fn of(document: &OpenApi) -> Self {
        let routes =
            document.paths.paths.iter().filter(|(route, _)| route.starts_with(AGENT) || route.starts_with(MCP));
        let known = routes.flat_map(|(route, item)| {
            operations(item).into_iter().filter_map(|(method, operation)| {
                let action = action(&method, operation?)?;
                Some(((method, route.clone()), action))
            })
        });
        Self(known.collect())
    }

    /// Returns the kind and name of a request with this method to this route, if the audit records it.
    pub(super) fn find(&self, method: &Method, route: &str) -> Option<(AuditKind, Arc<str>)> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.get(&(method.clone(), route.to_owned())).cloned()
    }
}

fn action(method: &Method, operation: &Operation) -> Option<(AuditKind, Arc<str>)> {
    let id = operation.operation_id.as_deref()?;
    if id == "call_mcp_server" {
        return Some((AuditKind::Tool, id.into()));
    }
    let tags = operation.tags.iter().flatten();
    if tags.into_iter().any(|tag| TOOLS.contains(&tag.as_str())) {
        return Some((AuditKind::Tool, id.into()));
    }
    let changes = method != Method::GET;
    changes.then(|| (AuditKind::Lifecycle, id.strip_suffix("_workspace").unwrap_or(id).into()))
}

fn operations(item: &PathItem) -> [(Method, Option<&Operation>); 5] {
    [
        (Method::GET, item.get.as_ref()),
        (Method::PUT, item.put.as_ref()),
        (Method::POST, item.post.as_ref()),
        (Method::PATCH, item.patch.as_ref()),
        (Method::DELETE, item.delete.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_operation() {
        let actions = Actions::of(&crate::openapi());
        let find = |method: Method, route: &str| {
            let found = actions.find(&method, &format!("{WORKSPACES}{route}"));
            found.map(|(kind, action)| (kind, action.to_string()))
        };
        let tool = |action: &str| Some((AuditKind::Tool, action.to_owned()));
        let step = |action: &str| Some((AuditKind::Lifecycle, action.to_owned()));
        assert_eq!(find(Method::POST, "/{id}/bash"), tool("bash"));
        assert_eq!(find(Method::POST, "/{id}/git"), tool("git"));
        assert_eq!(find(Method::HEAD, "/{id}/files/content"), tool("download_file"));
        assert_eq!(find(Method::GET, "/{id}/processes/{execution_id}/wait"), tool("wait_for_process"));
        assert_eq!(find(Method::POST, ""), step("create"));
        assert_eq!(find(Method::DELETE, "/{id}"), step("destroy"));
        assert_eq!(find(Method::GET, "/{id}"), None);
        assert_eq!(find(Method::GET, ""), None);
    }
}
