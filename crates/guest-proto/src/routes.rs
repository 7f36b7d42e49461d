//! The guest's HTTP routes: the guest builds its router from them, and the client its requests.

use std::fmt;

use http::Method;

/// Makes [`Route`] of a table with one line for each route.
macro_rules! routes {
    ($($(#[doc = $doc:literal])+ $name:ident = $method:ident $path:literal,)+) => {
        /// A route of the guest. `{id}` in its path stands for an [`ExecutionId`](crate::ExecutionId), a
        /// [`ChildId`](crate::ChildId) or a [`CallId`](crate::CallId).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Route {
            /// All routes.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The method of the route's requests.
            pub const fn method(self) -> Method {
                match self {
                    $(Self::$name => Method::$method,)+
                }
            }

            /// The path of the route, with `{id}` where an id stands.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)+
                }
            }
        }
    };
}

routes! {
    /// → [`Hello`](crate::Hello): liveness and what the guest is.
    Hello = GET "/v1/hello",
    /// → [`Usage`](crate::Usage): what the workspace uses now.
    Usage = GET "/v1/usage",
    /// [`Configuration`](crate::Configuration) → 204, when it is kept.
    Configure = POST "/v1/hand-over",
    /// [`Restored`](crate::machine::Restored) → [`Hello`](crate::Hello), when the guest has taken note of it. Only where
    /// it is PID 1 of a virtual machine.
    Restored = POST "/v1/machine/restored",
    /// [`LastEnd`](crate::LastEnd) → 204: why the executions that were lost before this boot were.
    LastEnd = POST "/v1/last-end",
    /// → 204: the guest ends all processes in order and then itself.
    Shutdown = POST "/v1/shutdown",

    /// [`BashRequest`](crate::tools::BashRequest) → [`BashResult`](crate::tools::BashResult), when the shell has exited.
    Bash = POST "/v1/tools/bash",
    /// [`ReadRequest`](crate::tools::ReadRequest) → [`ReadResult`](crate::tools::ReadResult).
    Read = POST "/v1/tools/read",
    /// [`WriteRequest`](crate::tools::WriteRequest) → [`WriteResult`](crate::tools::WriteResult).
    Write = POST "/v1/tools/write",
    /// [`EditRequest`](crate::tools::EditRequest) → [`EditResult`](crate::tools::EditResult).
    Edit = POST "/v1/tools/edit",
    /// [`GlobRequest`](crate::tools::GlobRequest) → [`GlobResult`](crate::tools::GlobResult).
    Glob = POST "/v1/tools/glob",
    /// [`GrepRequest`](crate::tools::GrepRequest) → [`GrepResult`](crate::tools::GrepResult).
    Grep = POST "/v1/tools/grep",
    /// [`GitRequest`](crate::tools::GitRequest) → [`GitResult`](crate::tools::GitResult).
    Git = POST "/v1/tools/git",

    /// [`StartRequest`](crate::execution::StartRequest) → [`Execution`](crate::Execution), at once.
    StartExecution = POST "/v1/executions",
    /// → [`ExecutionList`](crate::execution::ExecutionList), newest first.
    ListExecutions = GET "/v1/executions",
    /// → [`Execution`](crate::Execution).
    Execution = GET "/v1/executions/{id}",
    /// [`OutputQuery`](crate::execution::OutputQuery) → a stream of [`frame`](crate::frame)s.
    ExecutionOutput = GET "/v1/executions/{id}/output",
    /// [`SignalRequest`](crate::execution::SignalRequest) → 204.
    SignalExecution = POST "/v1/executions/{id}/signal",
    /// [`StdinQuery`](crate::execution::StdinQuery) + raw bytes → 204 when they are written to the process.
    ExecutionInput = POST "/v1/executions/{id}/stdin",
    /// → [`Execution`](crate::Execution), when the whole tree is gone (SIGTERM, 5 s, SIGKILL).
    CancelExecution = POST "/v1/executions/{id}/cancel",
    /// → [`BashResult`](crate::tools::BashResult), when the execution has ended. Repeatable.
    WaitForExecution = GET "/v1/executions/{id}/wait",

    /// [`SpawnChild`](crate::child::SpawnChild) → [`ChildStatus`](crate::ChildStatus), when its program runs.
    SpawnChild = POST "/v1/children",
    /// → [`ChildList`](crate::child::ChildList).
    ListChildren = GET "/v1/children",
    /// → [`ChildStatus`](crate::ChildStatus).
    Child = GET "/v1/children/{id}",
    /// → 204: a child that has ended is forgotten.
    ForgetChild = DELETE "/v1/children/{id}",
    /// [`NoteRequest`](crate::child::NoteRequest) → 204.
    SetChildNote = POST "/v1/children/{id}/note",
    /// [`OffsetQuery`](crate::child::OffsetQuery) + acknowledged offsets → raw output; see [`child`](crate::child).
    ChildOutput = POST "/v1/children/{id}/stdout",
    /// Raw input → offsets that the child has got to; see [`child`](crate::child).
    ChildInput = POST "/v1/children/{id}/stdin",
    /// → 204: the child reads the end of its input after what it has been given.
    CloseChildInput = POST "/v1/children/{id}/close-stdin",
    /// [`OffsetQuery`](crate::child::OffsetQuery) → raw bytes of standard error, those of its end that are kept.
    ChildErrors = GET "/v1/children/{id}/stderr",
    /// [`SignalRequest`](crate::execution::SignalRequest) → 204.
    SignalChild = POST "/v1/children/{id}/signal",
    /// [`EndRequest`](crate::child::EndRequest) → [`ChildStatus`](crate::ChildStatus), when its whole tree is gone.
    EndChild = POST "/v1/children/{id}/end",
    /// → [`ChildStatus`](crate::ChildStatus), when it has ended. Repeatable.
    WaitForChild = GET "/v1/children/{id}/wait",
    /// [`TunnelQuery`](crate::child::TunnelQuery) + raw bytes → raw bytes: one TCP connection.
    Tunnel = POST "/v1/tunnel",

    /// [`PathQuery`](crate::files::PathQuery) → raw bytes; honours `Range: bytes=N-` and `bytes=N-M`.
    Download = GET "/v1/files/content",
    /// [`UploadQuery`](crate::files::UploadQuery) + raw bytes → [`FileInfo`](crate::files::FileInfo), atomically.
    Upload = PUT "/v1/files/content",
    /// [`PathQuery`](crate::files::PathQuery) → an uncompressed tar of the file or directory.
    Pack = GET "/v1/files/archive",
    /// [`PathQuery`](crate::files::PathQuery) + an uncompressed tar → 204, unpacked below the directory.
    Unpack = PUT "/v1/files/archive",
    /// [`PathQuery`](crate::files::PathQuery) → [`FileInfo`](crate::files::FileInfo).
    DescribeFile = GET "/v1/files/stat",
    /// [`PathQuery`](crate::files::PathQuery) → [`FileList`](crate::files::FileList).
    ListFiles = GET "/v1/files/list",
    /// [`PathRequest`](crate::files::PathRequest) → [`FileInfo`](crate::files::FileInfo), parents made too.
    MakeDirectory = POST "/v1/files/mkdir",
    /// [`MoveRequest`](crate::files::MoveRequest) → [`FileInfo`](crate::files::FileInfo).
    MoveFile = POST "/v1/files/move",
    /// [`RemoveRequest`](crate::files::RemoveRequest) → 204.
    RemoveFile = POST "/v1/files/remove",

    /// [`OutcomeQuery`](crate::call::OutcomeQuery) → [`CallOutcome`](crate::CallOutcome). A call that is not known is
    /// refused from then on.
    CallOutcome = GET "/v1/calls/{id}",
}

// === impl Route ===

impl Route {
    /// The path of the route with its `{id}` filled in.
    pub fn path_of(self, id: &impl fmt::Display) -> String {
        self.path().replace("{id}", &id.to_string())
    }
}
