//! The catalogue of problems: each kind has one stable address, one status and one title.

use axum::http::StatusCode;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $slug:literal, $status:ident, $title:literal;)+) => {
        /// A kind of problem. The doc comment of each is the text of the page at its address.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ProblemKind {
            /// All kinds, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The last part of its address, `/problems/{slug}`. Never changes once released.
            pub fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)+ }
            }

            /// The HTTP status that carries it.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)+ }
            }

            /// The kind in a few words that do not change from one occurrence to the next.
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }

            /// The meaning of the kind and the caller's next step, for the page at its address.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc, "\n",)+),)+ }
            }
        }
    };
}

kinds! {
    /// The body is not JSON, or the query string cannot be read. Send well-formed JSON as `application/json`.
    MalformedRequest = "malformed-request", BAD_REQUEST, "The request cannot be read";
    /// A field is unknown, missing or of the wrong type. `errors` names each one; the API page lists what is taken.
    InvalidRequest = "invalid-request", BAD_REQUEST, "The request does not have the right form";
    /// There is no token, or it is not valid (any more). Send `Authorization: Bearer emt_…`. The first token stands in
    /// `bootstrap-token` in the server's data directory; make others with `emergent token create`.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid token is needed";
    /// The token is valid and lacks the scope that this call needs. Make one that has it.
    MissingScope = "missing-scope", FORBIDDEN, "The token lacks a scope";
    /// Only an administrator's token may do this for other projects or for the installation. Leave `project` out, or ask an
    /// administrator of the server.
    ProjectNotAllowed = "project-not-allowed", FORBIDDEN, "The token may not name another project";
    /// The token is for one workspace, or for some tools, and this call is something else. Use another token.
    NotGranted = "not-granted", FORBIDDEN, "The token is for something else";
    /// The token may use some tools of workspaces alone, and this is not one of them; `detail` names those that it may
    /// use. Make a token with this one among its `tools`.
    ToolNotEnabled = "tool-not-enabled", FORBIDDEN, "The tool is not enabled for the token";
    /// The token is not an operator's: its calls to a workspace name the session that they are made for. Send the header
    /// `Emergent-Session` with the id that `POST …/attach` answered.
    SessionRequired = "session-required", FORBIDDEN, "The call has to name its session";
    /// The server's settings allow only some images (`WORKSPACE_ALLOWED_IMAGES`), and this is not one of them.
    ImageNotAllowed = "image-not-allowed", FORBIDDEN, "The image is not allowed here";
    /// The workspace's user may not do this. Where the workspace allows root, send `"user": "root"`.
    PermissionDenied = "permission-denied", FORBIDDEN, "Permission denied in the workspace";
    /// The API has no such path. `/openapi.json` and `/docs` list all paths.
    NoSuchRoute = "no-such-route", NOT_FOUND, "There is nothing at this path";
    /// No workspace of your project has this id. Destroyed ones stay listed with `include_destroyed=true`.
    WorkspaceNotFound = "workspace-not-found", NOT_FOUND, "There is no such workspace";
    /// There is no project of this id.
    ProjectNotFound = "project-not-found", NOT_FOUND, "There is no such project";
    /// No snapshot of your project has this id. List them with `GET /api/v1/agent/snapshots`.
    SnapshotNotFound = "snapshot-not-found", NOT_FOUND, "There is no such snapshot";
    /// No leftover has this id. List them with `GET /api/v1/admin/leftovers`.
    LeftoverNotFound = "leftover-not-found", NOT_FOUND, "There is no such leftover";
    /// No hosted MCP server of your project has this id or name. List them with `GET /api/v1/mcp/servers`.
    McpServerNotFound = "mcp-server-not-found", NOT_FOUND, "There is no such MCP server";
    /// Another hosted MCP server of your project has this name. Choose another one, or change that server.
    McpServerNameTaken = "mcp-server-name-taken", CONFLICT, "The name is taken";
    /// The hosted MCP server was stopped, has failed or is being deleted, and `detail` says why. Look at it with
    /// `GET …/{id}`; restart it with `POST …/{id}/restart`.
    McpServerNotRunning = "mcp-server-not-running", CONFLICT, "The MCP server does not run";
    /// The hosted MCP server is being started, or waits after crashes before it is. Try again shortly.
    McpServerNotReady = "mcp-server-not-ready", SERVICE_UNAVAILABLE, "The MCP server is not ready";
    /// The hosted MCP server's process ended, or did not get ready, before it answered. It is started again as its
    /// restart policy says; `GET …/{id}/logs` shows its last words.
    McpServerFailed = "mcp-server-failed", BAD_GATEWAY, "The MCP server failed";
    /// The hosted MCP server did not answer in time. Nothing was restarted; `POST …/{id}/restart` does so.
    McpCallTimedOut = "mcp-call-timed-out", GATEWAY_TIMEOUT, "The MCP server did not answer in time";
    /// More calls are under way at this hosted MCP server than it takes. Try again when some have ended.
    McpServerBusy = "mcp-server-busy", TOO_MANY_REQUESTS, "The MCP server is busy";
    /// The token may use some tools of this hosted MCP server, and this is not one of them, or is none at all. Make a
    /// token that names the tool, or the server as a whole, in `mcp_servers`.
    McpToolNotAllowed = "mcp-tool-not-allowed", FORBIDDEN, "The token may not use this";
    /// An environment is kept encrypted, and the server has no key. Set `EMERGENT_SECRET_KEY` to 64 hexadecimal digits,
    /// the same on every server of the database.
    NoSecretKey = "no-secret-key", UNPROCESSABLE_ENTITY, "The server cannot keep secrets";
    /// A page of another origin has called, as a browser says. Name its host in `EMERGENT_ALLOWED_HOSTS` if it may.
    OriginNotAllowed = "origin-not-allowed", FORBIDDEN, "Pages of this origin may not call";
    /// No token of your project has this id.
    TokenNotFound = "token-not-found", NOT_FOUND, "There is no such token";
    /// The workspace has had no session of this id. `GET …/sessions` lists all that it had.
    SessionNotFound = "session-not-found", NOT_FOUND, "There is no such session";
    /// Nothing stands at that path in the workspace.
    FileNotFound = "file-not-found", NOT_FOUND, "There is no such file or directory";
    /// The workspace knows no execution of this id. Its own list is at `…/processes`.
    UnknownExecution = "unknown-execution", NOT_FOUND, "There is no such execution";
    /// The guest in this workspace is older than the server and does not know this call. Make a new workspace.
    GuestOutdated = "guest-outdated", NOT_FOUND, "The workspace is too old for this call";
    /// The body came too slowly: a body has half a minute, and a second more for each 64 KiB that has come. Send it
    /// without pauses; upload large contents with `PUT …/files/content`, which has no such limit.
    BodyTooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body came too slowly";
    /// Your project has called more often than `WORKSPACE_RATE_LIMIT` allows. Try again after `Retry-After` seconds.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "The project calls too often";
    /// Your project has as many calls under way as one project may have, or their bodies and answers take all the
    /// memory that one project may use. Make fewer calls at a time, and read answers without pauses.
    TooMuchUnderWay = "too-much-under-way", TOO_MANY_REQUESTS, "The project has too much under way";
    /// The bodies and answers of requests under way take all the memory that the server has for them
    /// (`EMERGENT_MEMORY_BUDGET`). Try again in a moment. Small calls go on meanwhile.
    ServerBusy = "server-busy", SERVICE_UNAVAILABLE, "The server is busy";
    /// The path takes other methods; the `Allow` header names them.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method";
    /// The workspace is not in a state that allows this. `detail` says which state it is in and what leads out of it.
    WrongState = "wrong-state", CONFLICT, "The workspace is in another state";
    /// The workspace ended, or was ended, while the call was under way. The detail says how, and whether the call may
    /// have happened.
    WorkspaceEnded = "workspace-ended", CONFLICT, "The workspace ended during the call";
    /// Another workspace of your project has this name. Choose another one, or rename or destroy that workspace.
    NameTaken = "name-taken", CONFLICT, "The name is taken";
    /// Another session holds the workspace. `detail` names its holder. Wait until it detaches, or attach with
    /// `"take_over": true`.
    WorkspaceAttached = "workspace-attached", CONFLICT, "The workspace is attached by somebody else";
    /// The session has ended, and no other one is attached. Attach again.
    SessionEnded = "session-ended", CONFLICT, "The session is not attached";
    /// The session id names another session, or one that has ended. Use a new one, or leave it out.
    SessionIdTaken = "session-id-taken", CONFLICT, "The session id is taken";
    /// Another execution of the workspace has this id. Use another one, or reattach to that execution.
    ExecutionExists = "execution-exists", CONFLICT, "The execution id is taken";
    /// Another call of the workspace has this id, or the call was asked for before it came, and is not done. `GET
    /// …/calls/{call_id}` tells which. Give each call an id of its own.
    CallExists = "call-exists", CONFLICT, "The call id is taken";
    /// The process has ended, or was started without standard input.
    NotRunning = "not-running", CONFLICT, "The process does not take this now";
    /// Something stands at the path already.
    AlreadyExists = "already-exists", CONFLICT, "Something stands at the path already";
    /// The body is larger than this call takes. For big files use `PUT …/files/content`, which takes any size.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "Too large";
    /// The body's media type is not what this call takes. Send JSON as `application/json`.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The media type is not taken here";
    /// The file has no bytes in that range.
    RangeNotSatisfiable = "range-not-satisfiable", RANGE_NOT_SATISFIABLE, "There are no bytes in that range";
    /// The `Host` header names a host that this server does not answer for. A server on a loopback address answers
    /// for loopback names only, so that web pages cannot reach it by DNS rebinding; behind a reverse proxy, name the
    /// public host in `EMERGENT_ALLOWED_HOSTS`.
    HostNotAllowed = "host-not-allowed", MISDIRECTED_REQUEST, "This server does not answer for that host";
    /// Another server of the installation drives this workspace, and this one cannot pass the request on: `detail`
    /// names it. Ask that server, or set `EMERGENT_ADVERTISE_URL` there to where this one reaches it.
    WorkspaceElsewhere = "workspace-elsewhere", MISDIRECTED_REQUEST, "Another server has the workspace";
    /// A field has the right type and a value that makes no sense or is out of range. `errors` names it and what it
    /// takes.
    InvalidValue = "invalid-value", UNPROCESSABLE_ENTITY, "A value is out of range";
    /// This `Idempotency-Key` came before with another request. Use a new key for a new request.
    IdempotencyMismatch = "idempotency-mismatch", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// The workspace could not be made; nothing of it is left. `detail` is the reason.
    WorkspaceFailed = "workspace-failed", UNPROCESSABLE_ENTITY, "The workspace could not be made";
    /// The snapshot could not be taken; `detail` says why. The workspace is as it was, and nothing of the snapshot is
    /// left but its row, for you to read and to delete.
    SnapshotFailed = "snapshot-failed", UNPROCESSABLE_ENTITY, "The snapshot could not be taken";
    /// The snapshot is still being taken, is being deleted, was not taken, or is kept by another server of the
    /// installation. `detail` says which.
    SnapshotUnusable = "snapshot-unusable", CONFLICT, "The snapshot cannot be used";
    /// Too little is known of the leftover to adopt it, or another server of the installation has it. `detail` says
    /// which.
    LeftoverUnusable = "leftover-unusable", CONFLICT, "The leftover cannot be adopted or removed here";
    /// The provider of this workspace cannot do this at all; `GET …/providers` lists what each can.
    UnsupportedOperation = "unsupported-operation", UNPROCESSABLE_ENTITY, "The provider cannot do this";
    /// The path is a directory and this needs a file.
    IsDirectory = "is-directory", UNPROCESSABLE_ENTITY, "The path is a directory";
    /// The path is not a directory and this needs one.
    NotADirectory = "not-a-directory", UNPROCESSABLE_ENTITY, "The path is not a directory";
    /// `old_string` does not occur in the file; nothing was changed. Read the file again and copy the text exactly.
    StringNotFound = "string-not-found", UNPROCESSABLE_ENTITY, "The text to replace does not occur";
    /// `old_string` occurs more than once; nothing was changed. Take more lines into it, or set `replace_all`.
    SeveralMatches = "several-matches", UNPROCESSABLE_ENTITY, "The text to replace occurs more than once";
    /// The file does not hold the contents that the call expects, as somebody else has changed it; nothing was changed.
    /// `detail` has the hash of what it holds now. Read the file again, and decide whether the change still fits.
    ContentChanged = "content-changed", PRECONDITION_FAILED, "The file has changed meanwhile";
    /// The file is not text. Download it from `…/files/content`.
    BinaryFile = "binary-file", UNPROCESSABLE_ENTITY, "The file is not text";
    /// This server does not have the provider that was asked for. `GET /api/v1/agent/workspaces/providers` lists those
    /// that it has.
    ProviderAbsent = "provider-absent", UNPROCESSABLE_ENTITY, "The provider is not on this server";
    /// No provider of this server can do what the request requires; `detail` says which lacks what.
    RequirementsUnmet = "requirements-unmet", UNPROCESSABLE_ENTITY, "No provider meets the requirements";
    /// The command and its environment together are longer than the workspace's kernel takes; `detail` has both
    /// lengths. Write large values to files, and pass their names.
    ArgumentsTooLong = "arguments-too-long", UNPROCESSABLE_ENTITY, "Command and environment are too long";
    /// The workspace's image lacks the program that this call needs.
    MissingProgram = "missing-program", UNPROCESSABLE_ENTITY, "A program is missing in the image";
    /// git refused; `detail` has its words.
    GitFailed = "git-failed", UNPROCESSABLE_ENTITY, "git refused";
    /// As many workspaces as `WORKSPACE_MAX_CONCURRENT` allows are in use, or as many MCP servers as
    /// `EMERGENT_MCP_MAX_SERVERS` allows are hosted. Destroy or stop one, or try again later.
    LimitReached = "limit-reached", TOO_MANY_REQUESTS, "The installation's limit is reached";
    /// Your project has as much as its quota allows. `detail` names the quota, what it allows, what is in use and what
    /// was asked for. Remove something, or ask an administrator of the server to raise it with `emergent project
    /// quota`.
    QuotaReached = "quota-reached", TOO_MANY_REQUESTS, "The project's quota is reached";
    /// The machine that runs workspaces has nearly as many processes and threads as it may have. Stop some, try again
    /// later, or ask its administrators to raise `kernel.pid_max` and `kernel.threads-max`.
    HostFull = "host-full", TOO_MANY_REQUESTS, "The host has no room for more processes";
    /// The workspace has reached its limit on processes or memory.
    ResourceLimit = "resource-limit", TOO_MANY_REQUESTS, "The workspace has reached a resource limit";
    /// A defect of the server. The log has it under the request id of the answer's `x-request-id` header.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The server failed";
    /// The workspace's guest failed for a reason that has no better name.
    GuestFailed = "guest-failed", INTERNAL_SERVER_ERROR, "The workspace failed";
    /// The engine that runs the workspace refused.
    EngineRefused = "engine-refused", BAD_GATEWAY, "The engine refused";
    /// The connection to the workspace broke in the middle of the call, which may have happened all the same, or be
    /// happening. Look before you repeat it: `GET …/calls/{call_id}` tells what came of a change; an execution goes on
    /// and can be reattached to.
    CallInterrupted = "call-interrupted", BAD_GATEWAY, "The call was interrupted";
    /// The server that drives the workspace does not answer. Another one that shares its engine takes over within a
    /// minute; where there is none, start it again.
    ServerAway = "server-away", SERVICE_UNAVAILABLE, "The workspace's server does not answer";
    /// This server is being drained for maintenance: the workspaces that it has go on, and it takes no new ones.
    ServerDraining = "server-draining", SERVICE_UNAVAILABLE, "The server takes no new workspaces";
    /// Workspaces are switched off on this server. Set `ENABLE_AGENT_WORKSPACES=true` and start it again.
    WorkspacesDisabled = "workspaces-disabled", SERVICE_UNAVAILABLE, "Workspaces are switched off";
    /// No provider can make this workspace now. `detail` says why; `emergent doctor` says how to mend it.
    NoProvider = "no-provider", SERVICE_UNAVAILABLE, "No provider is available";
    /// The engine that runs the workspace does not answer.
    EngineUnavailable = "engine-unavailable", SERVICE_UNAVAILABLE, "The engine does not answer";
    /// The workspace could not be reached; the call did not happen and can be repeated.
    WorkspaceUnreachable = "workspace-unreachable", SERVICE_UNAVAILABLE, "The workspace could not be reached";
    /// The server is starting, or its store does not answer.
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "The server is not ready";
    /// The store does not answer or refused.
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE, "The store does not answer";
    /// The workspace did not answer in time; the call may have happened all the same, or be happening. `GET
    /// …/calls/{call_id}` tells what came of a change.
    CallTimedOut = "call-timed-out", GATEWAY_TIMEOUT, "The workspace did not answer in time";
    /// No space is left in the workspace. Remove files, or make a workspace with a larger `disk` limit.
    DiskFull = "disk-full", INSUFFICIENT_STORAGE, "No space is left in the workspace";
    /// The disk of the machine that runs workspaces is nearly full: its administrators keep the rest free
    /// (`WORKSPACE_DISK_RESERVE`). Remove workspaces, snapshots or files that are not needed any more.
    HostDiskFull = "host-disk-full", INSUFFICIENT_STORAGE, "The host's disk is nearly full";
}

impl ProblemKind {
    /// The problem's address, relative to the server.
    pub fn address(self) -> String {
        format!("/problems/{}", self.slug())
    }
}
