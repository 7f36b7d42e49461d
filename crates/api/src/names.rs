//! Names of workspaces in addresses: `/api/v1/agent/workspaces/first/bash` is the call to the workspace that is named
//! `first`.
//!
//! The name is replaced by the id before anything else looks at the path, so that routes, the audit and the other
//! servers of an installation know ids alone.

use axum::{
    extract::{Request, State},
    http::{Uri, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use emergent_core::WorkspaceId;
use percent_encoding::percent_decode_str;

use crate::{
    auth::principal_of,
    http::{extract::NotLookedUp, rates::Counted},
    state::ApiState,
};

const WORKSPACES: &str = "/api/v1/agent/workspaces/";
/// The words that stand there for something else than a workspace.
const ROUTES: [&str; 1] = ["providers"];

/// Replaces a workspace's name in the path by its id. A path without a known name, and a caller without a valid token,
/// go on unchanged: the route says what is wrong.
pub(crate) async fn resolve(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    if let Some((name, rest)) = name_in(request.uri().path())
        && let Ok(principal) = principal_of(request.headers(), &state).await
    {
        let rest = rest.to_owned();
        // The look-up is part of the call, and counts before it costs anything.
        if let Err(refusal) = state.rates().admit(principal.project) {
            return refusal.into_response();
        }
        request.extensions_mut().insert(Counted);
        match state.workspaces().named(principal.project, &name).await {
            // To a principal of one workspace the others have no names.
            Ok(Some(id)) if principal.grants.workspace.is_none_or(|own| own == id) => {
                *request.uri_mut() = with_id(request.uri(), id, &rest);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a workspace could not be looked up by its name");
                request.extensions_mut().insert(NotLookedUp);
            }
        }
    }
    next.run(request).await
}

/// The name that stands where a workspace's id may stand, and what follows it.
fn name_in(path: &str) -> Option<(String, &str)> {
    let below = path.strip_prefix(WORKSPACES)?;
    let (segment, rest) = below.find('/').map_or((below, ""), |slash| below.split_at(slash));
    let is_name = !segment.is_empty() && !ROUTES.contains(&segment) && segment.parse::<WorkspaceId>().is_err();
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    is_name.then(|| (name.into_owned(), rest))
}

/// The same address with the id in the name's place.
fn with_id(uri: &Uri, id: WorkspaceId, rest: &str) -> Uri {
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{WORKSPACES}{id}{rest}{query}")).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_where_an_id_may_stand_and_nowhere_else() {
        let id = WorkspaceId::generate();
        let named = |path: &str| name_in(path).map(|(name, rest)| (name, rest.to_owned()));
        let first = |rest: &str| Some(("first".to_owned(), rest.to_owned()));
        assert_eq!(named("/api/v1/agent/workspaces/first/bash"), first("/bash"));
        assert_eq!(named("/api/v1/agent/workspaces/first"), first(""));
        assert_eq!(named("/api/v1/agent/workspaces/a%20b%2Fc/files/content").unwrap().0, "a b/c");
        for path in [
            "/api/v1/agent/workspaces",
            "/api/v1/agent/workspaces/",
            "/api/v1/agent/workspaces/providers",
            "/api/v1/agent/snapshots/first",
            &format!("/api/v1/agent/workspaces/{id}/bash"),
        ] {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_of_the_address_stays() {
        let id = WorkspaceId::generate();
        let uri = Uri::from_static("http://host:1/api/v1/agent/workspaces/first/files/content?path=a%2Fb");
        let expected = format!("http://host:1/api/v1/agent/workspaces/{id}/files/content?path=a%2Fb");
        assert_eq!(with_id(&uri, id, "/files/content").to_string(), expected);
    }
}
