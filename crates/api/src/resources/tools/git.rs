//! The git tool. What it needs of its caller depends on the action.

use std::fmt;

use axum::{Json, extract::State};
use emergent_core::Purpose;
use emergent_guest_proto::{
    GuestPath,
    tools::{GitAction, GitRequest, GitResult},
};
use emergent_store::Scope;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    auth::Caller,
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

/// The field of every action, which the actions themselves do not know.
const PATH: &str = "path";

/// Works with a git repository.
///
/// `status`, `diff`, `log` and a `branch` without `name` need the scope `admin:read`; the other actions need
/// `admin:write` as well.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/git",
    tag = "tools",
    params(WorkspaceParam, CallParam),
    request_body = GitRequest,
    responses((status = 200, description = "What git said, structured.", body = GitResult), OnGuest)
)]
pub(super) async fn git(
    caller: Caller,
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
#[derive(Debug)]
pub(super) struct Strict(GitRequest);

/// The fields of an action; the path, which stands between them, is taken out.
struct ActionFields<A> {
    fields: A,
    path: Option<Option<GuestPath>>,
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrictVisitor;

        impl<'de> Visitor<'de> for StrictVisitor {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Strict, A::Error> {
                let mut fields = ActionFields { fields, path: None };
                let action = GitAction::deserialize(MapAccessDeserializer::new(&mut fields))?;
                Ok(Strict(GitRequest { path: fields.path.flatten(), action }))
            }
        }

        deserializer.deserialize_map(StrictVisitor)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ActionFields<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(field) = self.fields.next_key::<String>()? {
            if field != PATH {
                return seed.deserialize(field.into_deserializer()).map(Some);
            }
            if self.path.replace(self.fields.next_value()?).is_some() {
                return Err(A::Error::duplicate_field(PATH));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.fields.next_value_seed(seed)
    }
}

impl Check for Strict {
    const OUTER_FIELDS: &'static [&'static str] = &[PATH];

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
    use std::sync::Arc;

    use axum::{
        body::Body,
        extract::{FromRequest as _, Request},
    };

    use super::*;
    use crate::http::route::{READ, of_workspace};

    async fn read(text: &'static str) -> Result<GitRequest, String> {
        let request = Request::post("/").header("content-type", "application/json");
        let request = request.extension(Arc::new(of_workspace(READ))).body(Body::from(text)).unwrap();
        let read = JsonBody::<Strict>::from_request(request, &()).await;
        read.map(|JsonBody(Strict(request))| request).map_err(|refusal| refusal.problem().detail.clone())
    }

    #[tokio::test]
    async fn an_unknown_field_of_an_action_is_refused_by_name() {
        let refusal = read(r#"{"action": "status", "path": "/workspace", "colour": "red"}"#).await.unwrap_err();
        assert!(refusal.contains("unknown field `colour`, expected `path`"), "{refusal}");
        let refusal = read(r#"{"action": "log", "message": "of a commit"}"#).await.unwrap_err();
        assert!(refusal.contains("unknown field `message`, expected one of `path`, `limit`"), "{refusal}");
    }

    #[tokio::test]
    async fn a_path_stands_beside_the_action() {
        let request = read(r#"{"path": "project", "action": "log", "limit": 3}"#).await.unwrap();
        assert_eq!(request.path.unwrap().to_string(), "project");
        assert_eq!(request.action, GitAction::Log { limit: Some(3), reference: None });
        assert!(read(r#"{"path": "a", "action": "status", "path": "b"}"#).await.is_err());
    }
}
