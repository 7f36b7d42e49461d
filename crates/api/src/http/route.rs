//! Routes and their metadata: the facts by which the layers around the handlers act.
//!
//! [`Routes`] takes an operation together with its [`RouteMetadata`], so that one place says who may call, which server
//! answers, whether a session is asked for, what the audit records and how long a body may be. The layer [`describe`]
//! hands the metadata to every layer and extractor further in; nobody derives such a fact from a path again.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::Response,
    routing::MethodRouter,
};
use emergent_budget::Limits;
use emergent_core::AuditKind;
use emergent_store::{Scope, Tool};
use utoipa::openapi::{
    KnownFormat, ObjectBuilder, OpenApi, PathItem, RefOr, SchemaFormat,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::Type,
    security::SecurityRequirement,
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::http::problem::{ProblemKind, Refusal};

/// The scope of operations that read.
pub(crate) const READ: Scope = Scope::AdminRead;
/// The scope of operations that change something.
pub(crate) const WRITE: Scope = Scope::AdminWrite;
/// The scope of operations that use hosted MCP servers.
pub(crate) const USE_MCP: Scope = Scope::McpUse;

/// The limits of a body, unless the route has others.
const BODY: Limits = Limits::json(1 << 20, 50_000);
/// The limits of a body with a command line and its environment.
pub(crate) const COMMAND: Limits = Limits::json(8 << 20, 50_000);
/// The limits of a body with the contents of a file.
pub(crate) const CONTENTS: Limits = Limits::json(32 << 20, 1_000);

/// The facts of one operation: of one method of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteMetadata {
    /// The callers that may call.
    pub(crate) access: Access,
    /// The thing that the path's parameter `id` names.
    pub(crate) subject: Subject,
    /// The servers of the installation that can answer.
    pub(crate) affinity: Affinity,
    /// The part of sessions in the call.
    pub(crate) session: SessionRule,
    /// The tool that the call is a use of.
    pub(crate) tool: ToolUse,
    /// Whether the call copies its workspace into a snapshot or another workspace, which are the project's.
    pub(crate) makes_copies: bool,
    /// The name of the call in the audit; `None` where the audit leaves the call out.
    pub(crate) audit: Option<AuditedAs>,
    /// The limits of a JSON body.
    pub(crate) body: Limits,
}

/// The callers that may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody; no token is needed.
    Public,
    /// Principals with this scope.
    Needs(Scope),
}

/// The thing that an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The caller's project, or the installation.
    Project,
    /// The workspace that the path names.
    Workspace,
    /// The hosted MCP server that the path names, by its id or name.
    McpServer,
}

/// The servers of the installation that can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Every server.
    Any,
    /// The server that drives the workspace, or hosts the MCP server.
    OwnerOfSubject,
    /// A server that takes new workspaces.
    TakesNewWorkspaces,
}

/// The part of sessions in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionRule {
    /// The call is not held back by sessions.
    Free,
    /// While a session holds the workspace, the call is refused unless it is made on behalf of that session, or by an
    /// operator.
    Bound,
}

/// The tool of workspaces that a call is a use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolUse {
    /// The call is not about tools.
    None,
    /// The call is a use of this tool.
    Of(Tool),
    /// The call belongs to a use of any tool.
    OfAny,
}

/// The name of a call in the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditedAs {
    pub(crate) kind: AuditKind,
    /// The operation's name; empty until the operation is registered.
    pub(crate) action: Arc<str>,
}

/// Routes with their metadata, and the OpenAPI document of those that are documented.
pub(crate) struct Routes<S> {
    router: OpenApiRouter<S>,
    table: RouteTable,
}

/// The metadata of all operations, by path and method.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteTable(HashMap<String, Methods>);

#[derive(Debug, Clone)]
enum Methods {
    /// Every method has the same metadata.
    All(Arc<RouteMetadata>),
    Each(HashMap<Method, Arc<RouteMetadata>>),
}

/// Returns the metadata of an operation that needs no token.
pub(crate) const fn public() -> RouteMetadata {
    RouteMetadata::new(Access::Public, Subject::Project, Affinity::Any, SessionRule::Free)
}

/// Returns the metadata of an operation on the caller's project or the installation, which every server can answer.
pub(crate) const fn of_project(scope: Scope) -> RouteMetadata {
    RouteMetadata::new(Access::Needs(scope), Subject::Project, Affinity::Any, SessionRule::Free)
}

/// Returns the metadata of an operation on a workspace, which the workspace's server alone can answer.
pub(crate) const fn of_workspace(scope: Scope) -> RouteMetadata {
    RouteMetadata::new(Access::Needs(scope), Subject::Workspace, Affinity::OwnerOfSubject, SessionRule::Bound)
}

/// Returns the metadata of an operation on a hosted MCP server, which its host alone can answer.
pub(crate) const fn of_mcp_server(scope: Scope) -> RouteMetadata {
    RouteMetadata::new(Access::Needs(scope), Subject::McpServer, Affinity::OwnerOfSubject, SessionRule::Free)
}

// === impl RouteMetadata ===

impl RouteMetadata {
    const fn new(access: Access, subject: Subject, affinity: Affinity, session: SessionRule) -> Self {
        Self { access, subject, affinity, session, tool: ToolUse::None, makes_copies: false, audit: None, body: BODY }
    }

    /// The answer stands in the subject's row, so that every server has it, and no session is in its way.
    pub(crate) fn answered_by_row(self) -> Self {
        Self { affinity: Affinity::Any, session: SessionRule::Free, ..self }
    }

    /// The operation makes workspaces.
    pub(crate) fn makes_workspaces(self) -> Self {
        Self { affinity: Affinity::TakesNewWorkspaces, ..self }
    }

    /// The operation copies its workspace into something that is the project's.
    pub(crate) fn makes_copies(self) -> Self {
        Self { makes_copies: true, ..self }
    }

    /// Sessions do not hold the operation back.
    pub(crate) fn free_of_sessions(self) -> Self {
        Self { session: SessionRule::Free, ..self }
    }

    /// The audit records the operation as a change of its subject.
    pub(crate) fn audited_as_change(self) -> Self {
        self.audited(AuditKind::Lifecycle)
    }

    /// The operation is a use of this tool, and the audit records it so.
    pub(crate) fn tool(self, tool: Tool) -> Self {
        Self { tool: ToolUse::Of(tool), ..self.audited_as_tool() }
    }

    /// The operation belongs to a use of any tool, and the audit records it so.
    pub(crate) fn any_tool(self) -> Self {
        Self { tool: ToolUse::OfAny, ..self.audited_as_tool() }
    }

    /// The audit records the operation as a call of a tool.
    pub(crate) fn audited_as_tool(self) -> Self {
        self.audited(AuditKind::Tool)
    }

    fn audited(self, kind: AuditKind) -> Self {
        Self { audit: Some(AuditedAs { kind, action: "".into() }), ..self }
    }

    /// The operation takes bodies within these limits.
    pub(crate) fn body(self, body: Limits) -> Self {
        Self { body, ..self }
    }

    /// Returns whether the operation asks for this scope.
    pub(crate) fn needs(&self, scope: Scope) -> bool {
        self.access == Access::Needs(scope)
    }

    /// Returns the metadata of a request's route.
    ///
    /// # Errors
    /// A refusal where the route has none, which is a defect.
    pub(crate) fn of(parts: &Parts) -> Result<Arc<Self>, Refusal> {
        let metadata = parts.extensions.get::<Arc<Self>>().cloned();
        metadata.ok_or_else(|| Refusal::new(ProblemKind::Internal, "the route was registered without its metadata"))
    }

    /// Completes the metadata by the operation's name, and the operation's documentation by the metadata.
    fn complete(mut self, operation: &mut Operation) -> Self {
        let name = operation.operation_id.as_deref().unwrap_or_default();
        if let Some(audit) = &mut self.audit {
            let is_change = audit.kind == AuditKind::Lifecycle;
            audit.action = name.strip_suffix("_workspace").filter(|_| is_change).unwrap_or(name).into();
        }
        operation.security = Some(vec![match self.access {
            Access::Public => SecurityRequirement::default(),
            Access::Needs(scope) => SecurityRequirement::new("token", [scope.as_str()]),
        }]);
        if self.session == SessionRule::Bound {
            operation.parameters.get_or_insert_default().push(RefOr::T(session_parameter()));
        }
        self
    }
}

// === impl Routes ===

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self { router: OpenApiRouter::new(), table: RouteTable::default() }
    }

    /// Begins with a document that has everything but operations.
    pub(crate) fn documented_by(document: OpenApi) -> Self {
        Self { router: OpenApiRouter::with_openapi(document), table: RouteTable::default() }
    }

    /// Adds an operation: one handler, by `routes!`.
    pub(crate) fn operation(
        mut self,
        (schemas, mut paths, methods): UtoipaMethodRouter<S>,
        metadata: RouteMetadata,
    ) -> Self {
        for (path, item) in &mut paths.paths {
            for (method, operation) in operations(item) {
                self.table.insert(path, method, metadata.clone().complete(operation));
            }
        }
        Self { router: self.router.routes((schemas, paths, methods)), ..self }
    }

    /// Adds a route that the OpenAPI document leaves out: of another protocol, or a page.
    pub(crate) fn undocumented(mut self, path: &str, methods: MethodRouter<S>, metadata: RouteMetadata) -> Self {
        self.table.0.insert(path.to_owned(), Methods::All(metadata.into()));
        Self { router: self.router.route(path, methods), ..self }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        for (path, methods) in other.table.0 {
            match (self.table.0.get_mut(&path), methods) {
                (Some(Methods::Each(known)), Methods::Each(more)) => known.extend(more),
                (_, methods) => drop(self.table.0.insert(path, methods)),
            }
        }
        Self { router: self.router.merge(other.router), ..self }
    }

    /// Returns the metadata of all operations.
    #[cfg(test)]
    pub(crate) fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Returns the OpenAPI document of the routes.
    pub(crate) fn into_document(self) -> OpenApi {
        self.router.into_openapi()
    }

    /// Returns the routes themselves, and their metadata for the layer [`describe`].
    pub(crate) fn into_parts(self) -> (Router<S>, Arc<RouteTable>) {
        (self.router.into(), self.table.into())
    }
}

/// Gives a request the metadata of its route; the function of the layer around all that act by them.
pub(crate) async fn describe(State(table): State<Arc<RouteTable>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    if let Some(metadata) = path.and_then(|path| table.find(request.method(), path.as_str())) {
        request.extensions_mut().insert(metadata);
    }
    next.run(request).await
}

// === impl RouteTable ===

impl RouteTable {
    fn insert(&mut self, path: &str, method: Method, metadata: RouteMetadata) {
        let methods = self.0.entry(path.to_owned()).or_insert_with(|| Methods::Each(HashMap::new()));
        if let Methods::Each(methods) = methods {
            methods.insert(method, metadata.into());
        }
    }

    fn find(&self, method: &Method, path: &str) -> Option<Arc<RouteMetadata>> {
        match self.0.get(path)? {
            Methods::All(metadata) => Some(Arc::clone(metadata)),
            Methods::Each(methods) => {
                let method = if method == Method::HEAD { &Method::GET } else { method };
                methods.get(method).cloned()
            }
        }
    }
}

#[cfg(test)]
impl std::fmt::Display for RouteTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        for (path, methods) in &self.0 {
            match methods {
                Methods::All(metadata) => lines.push(format!("{path} * {}", metadata.facts())),
                Methods::Each(methods) => {
                    lines.extend(methods.iter().map(|(method, it)| format!("{path} {method} {}", it.facts())));
                }
            }
        }
        lines.sort_unstable();
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
impl RouteMetadata {
    fn facts(&self) -> String {
        let access = match self.access {
            Access::Public => "public",
            Access::Needs(scope) => scope.as_str(),
        };
        let audit = self.audit.as_ref().map(|it| format!(", audited as {:?} {}", it.kind, it.action));
        let tool = match self.tool {
            ToolUse::None => String::new(),
            ToolUse::Of(tool) => format!(", tool {tool}"),
            ToolUse::OfAny => ", any tool".to_owned(),
        };
        let makes = if self.makes_copies { ", makes copies" } else { "" };
        let session = if self.session == SessionRule::Bound { ", bound to sessions" } else { "" };
        let body = match self.body {
            BODY => String::new(),
            Limits { bytes, .. } => format!(", body of {} MiB", bytes >> 20),
        };
        let audit = audit.unwrap_or_default();
        format!("{access}, {:?} by {:?}{session}{tool}{makes}{audit}{body}", self.subject, self.affinity)
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Returns the header that names the session on whose behalf a call is made.
fn session_parameter() -> Parameter {
    let uuid =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    ParameterBuilder::new()
        .name("Emergent-Session")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "The session that the call is made for, from `POST …/attach`. While another one holds the workspace, the \
             call is refused with 409. Left out: an operator's call, which is not held back.",
        ))
        .schema(Some(RefOr::T(uuid.build().into())))
        .build()
}
