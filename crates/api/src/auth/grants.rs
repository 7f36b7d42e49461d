//! The grants of a principal against the metadata of a route: one workspace alone, some tools alone, and calls within
//! sessions alone.

use axum::http::request::Parts;
use emergent_auth::Principal;
use emergent_store::{Grants, Tool};
use emergent_types::WorkspaceId;

use crate::http::{
    SESSION,
    extract::path_parameter,
    problem::{ProblemKind, Refusal},
    route::{RouteMetadata, SessionRule, Subject, ToolUse, USE_MCP, WRITE},
};

/// Refuses a call that the principal's grants leave out.
pub(super) async fn check(parts: &mut Parts, route: &RouteMetadata, principal: &Principal) -> Result<(), Refusal> {
    let grants = &principal.grants;
    check_workspace(parts, route, grants).await?;
    check_tool(route, grants)?;
    check_session(parts, route, grants)
}

/// Refuses what is not about the one workspace that the principal may use.
async fn check_workspace(parts: &mut Parts, route: &RouteMetadata, grants: &Grants) -> Result<(), Refusal> {
    let Some(own) = grants.workspace else { return Ok(()) };
    match route.subject {
        Subject::Workspace if route.makes_copies => {
            let detail = format!(
                "your token is for the workspace {own} alone, and makes neither snapshots nor copies of it; use a token of \
                 the whole project"
            );
            Err(Refusal::new(ProblemKind::NotGranted, detail))
        }
        Subject::Workspace => {
            let named = path_parameter(parts, &(), "id").await?;
            if named.parse::<WorkspaceId>().is_ok_and(|id| id == own) {
                return Ok(());
            }
            // The same as of a workspace that is not there.
            let detail = format!(
                "your token is for the workspace {own} alone, and sees no workspace of the name or id {named:?}"
            );
            Err(Refusal::new(ProblemKind::WorkspaceNotFound, detail))
        }
        Subject::Project | Subject::McpServer if route.needs(USE_MCP) => Ok(()),
        Subject::Project | Subject::McpServer => {
            let detail = format!("your token is for the workspace {own} alone; use a token of the whole project");
            Err(Refusal::new(ProblemKind::NotGranted, detail))
        }
    }
}

/// Refuses tools that the principal may not use, and changes that are no use of a tool.
fn check_tool(route: &RouteMetadata, grants: &Grants) -> Result<(), Refusal> {
    let Some(tools) = &grants.tools else { return Ok(()) };
    match route.tool {
        ToolUse::OfAny => Ok(()),
        ToolUse::Of(tool) if tools.contains(&tool) => Ok(()),
        ToolUse::Of(tool) => {
            let detail = format!("your token may not use the tool {tool}, only these: {}", words(tools));
            Err(Refusal::new(ProblemKind::ToolNotEnabled, detail))
        }
        // An agent always finds its way back into its workspace.
        ToolUse::None if route.subject == Subject::Workspace && route.session == SessionRule::Free => Ok(()),
        ToolUse::None if !route.needs(WRITE) => Ok(()),
        ToolUse::None => {
            let detail = format!("your token may use tools only ({}); use another token for this call", words(tools));
            Err(Refusal::new(ProblemKind::NotGranted, detail))
        }
    }
}

/// Refuses a call without a session to a principal that is no operator.
fn check_session(parts: &Parts, route: &RouteMetadata, grants: &Grants) -> Result<(), Refusal> {
    if grants.is_operator || route.session == SessionRule::Free || parts.headers.contains_key(SESSION) {
        return Ok(());
    }
    let detail = "your token is not an operator's, so that its calls name the session that they are made for; send the \
                  header `Emergent-Session` with the id that POST …/attach answered";
    Err(Refusal::new(ProblemKind::SessionRequired, detail))
}

fn words<'a>(tools: impl IntoIterator<Item = &'a Tool>) -> String {
    let words = tools.into_iter().map(|tool| tool.as_str()).collect::<Vec<_>>();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
