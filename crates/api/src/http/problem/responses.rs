//! Sets of problem answers for the OpenAPI document. Each operation names the sets that apply to it.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use super::PROBLEM_JSON;

/// The problems of every call with a token.
pub struct Usual;

/// The further problems of a call about one workspace.
pub struct OnWorkspace;

/// The further problems of a call about one snapshot.
pub struct OnSnapshot;

/// The further problems of a call about one hosted MCP server.
pub struct OnMcpServer;

/// The further problems of a call about files of a hosted MCP server.
pub struct OnMcpServerFiles;

/// The further problems of a call that reaches into a workspace.
pub struct OnGuest;

const USUAL: &[(u16, &str)] = &[
    (400, "The request cannot be read, or a field is unknown, missing or of the wrong type."),
    (401, "There is no valid token."),
    (403, "The token lacks the scope, or the server or the workspace does not allow this."),
    (408, "The body came too slowly."),
    (413, "The body is larger than this call takes."),
    (415, "The body's media type is not taken here."),
    (421, "The server does not answer for the host named, or another server has the workspace."),
    (422, "A value makes no sense or is out of range."),
    (429, "The project calls too often, or has too much under way at once."),
    (500, "The server failed; the request id finds the reason in its log."),
    (503, "The store does not answer, or the server is busy, shutting down or draining."),
    (507, "The host's disk is nearly full."),
];

const ON_WORKSPACE: &[(u16, &str)] = &[
    (404, "Your project has no such workspace."),
    (409, "The workspace is in a state that does not allow this."),
    (502, "The engine refused, or the connection to the workspace broke."),
    (503, "Workspaces are switched off, or the engine, the workspace or the store does not answer."),
];

const ON_SNAPSHOT: &[(u16, &str)] = &[
    (404, "Your project has no such snapshot."),
    (409, "The snapshot is in a state that does not allow this."),
    (502, "The engine refused."),
    (503, "Workspaces are switched off, or the engine or the store does not answer."),
];

const ON_MCP_SERVER: &[(u16, &str)] = &[
    (404, "Your project has no such MCP server."),
    (409, "The MCP server was stopped, has failed or is being deleted, or another has the name."),
    (429, "The MCP server has as many calls under way as it takes, or the project calls too often."),
    (502, "The engine refused, or the MCP server failed."),
    (503, "Workspaces are switched off, the engine or the store does not answer, or the MCP server is being started."),
];

const ON_MCP_SERVER_FILES: &[(u16, &str)] = &[
    (404, "There is no such MCP server, file or directory."),
    (409, "The server has no container now, or the path does not allow this."),
    (412, "The file holds other contents than the request expects."),
    (422, "A value makes no sense or is out of range, or what it names is not of the right kind."),
    (504, "The server's container did not answer in time."),
    (507, "No space is left in the server's container."),
];

const ON_GUEST: &[(u16, &str)] = &[
    (404, "There is no such workspace, execution, file or directory."),
    (409, "The workspace, the execution or the path is in a state that does not allow this."),
    (412, "The file holds other contents than the request expects."),
    (416, "The file has no bytes in that range."),
    (422, "A value makes no sense or is out of range, or what it names is not of the right kind."),
    (429, "The workspace has reached its limit on processes or memory, or the project calls too often."),
    (504, "The workspace did not answer in time."),
    (507, "No space is left in the workspace."),
];

impl IntoResponses for Usual {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL])
    }
}

impl IntoResponses for OnMcpServer {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL, ON_MCP_SERVER])
    }
}

impl IntoResponses for OnMcpServerFiles {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL, ON_MCP_SERVER, ON_MCP_SERVER_FILES])
    }
}

impl IntoResponses for OnWorkspace {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL, ON_WORKSPACE])
    }
}

impl IntoResponses for OnSnapshot {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL, ON_SNAPSHOT])
    }
}

impl IntoResponses for OnGuest {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[USUAL, ON_WORKSPACE, ON_GUEST])
    }
}

fn problems(sets: &[&[(u16, &str)]]) -> BTreeMap<String, RefOr<Response>> {
    sets.iter().copied().flatten().map(|(status, description)| (status.to_string(), problem(description))).collect()
}

fn problem(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build().into()
}
