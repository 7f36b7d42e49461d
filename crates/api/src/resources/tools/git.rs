//! The git tool. What it needs of its caller depends on the action.

use axum::{Json, extract::State};
use emergent_core::Purpose;
use emergent_guest_proto::{
    GuestPath,
    tools::{GitAction, GitRequest, GitResult},
};
use emergent_store::Scope;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::{
    auth::{Caller, NeedsRead},
    facts::Arguments,
    http::{
        check::{Check, Faults},
        extract::{JsonBody, WorkspacePath},
        problem::{OnGuest, Refusal},
    },
    resources::{
        calls::CallName,
        params::{CallParam, WorkspaceParam},
    },
    state::ApiState,
};

/// Works with a git repository.
///
/// `status`, `diff`, `log` and a `branch` without `name` need the scope `admin:read`; the other actions need
/// `admin:write` as well.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/git",
    tag = "tools",
    security(("token" = ["admin:read"])),
    params(WorkspaceParam, CallParam),
    request_body = GitRequest,
    responses((status = 200, description = "What git said, structured.", body = GitResult), OnGuest)
)]
pub(super) async fn git(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(Strict(request)): JsonBody<Strict>,
) -> Result<Json<GitResult>, Refusal> {
    if request.action.changes_something() {
        caller.require(Scope::AdminWrite)?;
    }
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Run).await?;
    Ok(Json(guest.call(|guest| guest.git(&call, &request)).await?))
}

/// A request that refuses unknown fields by name, which serde's `flatten` would swallow: the path is taken out, and
/// the action, which knows its fields, reads the rest.
pub(super) struct Strict(GitRequest);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let path = match fields.remove("path") {
            None | Some(Value::Null) => None,
            Some(path) => Some(GuestPath::deserialize(path).map_err(de::Error::custom)?),
        };
        let action =
            GitAction::deserialize(Value::Object(fields)).map_err(|error| de::Error::custom(with_path(&error)))?;
        Ok(Self(GitRequest { path, action }))
    }
}

/// Describes the fault of an action's fields. `path` is a field of every action, which the action itself does not know.
fn with_path(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let Some((field, known)) = message.rsplit_once("`, expected ").filter(|_| message.starts_with("unknown field"))
    else {
        return message.replace(", there are no fields", ", expected `path`");
    };
    let known = known.strip_prefix("one of ").map_or_else(|| known.replace(" or ", ", "), str::to_owned);
    format!("{field}`, expected one of `path`, {known}")
}

impl Check for Strict {
    fn check(&self, faults: &mut Faults) {
        match &self.0.action {
            GitAction::Commit { message, .. } => faults.not_empty("message", message),
            GitAction::Checkout { reference, .. } => faults.not_empty("reference", reference),
            GitAction::Log { limit, .. } => faults.range("limit", *limit, 1..=1_000),
            GitAction::Status {}
            | GitAction::Diff { .. }
            | GitAction::Push { .. }
            | GitAction::Pull { .. }
            | GitAction::Branch { .. } => {}
        }
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("action", word(&self.0.action));
        kept.optional("path", self.0.path.as_ref());
    }
}

fn word(action: &GitAction) -> &'static str {
    match action {
        GitAction::Status {} => "status",
        GitAction::Diff { .. } => "diff",
        GitAction::Commit { .. } => "commit",
        GitAction::Push { .. } => "push",
        GitAction::Pull { .. } => "pull",
        GitAction::Checkout { .. } => "checkout",
        GitAction::Log { .. } => "log",
        GitAction::Branch { .. } => "branch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GitRequest, String> {
        serde_json::from_str::<Strict>(text).map(|Strict(request)| request).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_field_of_an_action_is_refused_by_name() {
        let refusal = read(r#"{"action": "status", "path": "/workspace", "colour": "red"}"#).unwrap_err();
        assert!(refusal.contains("unknown field `colour`, expected `path`"), "{refusal}");
        let refusal = read(r#"{"action": "log", "message": "of a commit"}"#).unwrap_err();
        assert!(refusal.contains("unknown field `message`, expected one of `path`, `limit`"), "{refusal}");
    }

    #[test]
    fn a_path_stands_beside_the_action() {
        let request = read(r#"{"path": "project", "action": "log", "limit": 3}"#).unwrap();
        assert_eq!(request.path.unwrap().to_string(), "project");
        assert_eq!(request.action, GitAction::Log { limit: Some(3), reference: None });
    }
}
