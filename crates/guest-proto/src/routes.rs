//! The guest's HTTP routes. `{id}` stands for an [`ExecutionId`](crate::ExecutionId), a
//! [`ChildId`](crate::ChildId) or a [`CallId`](crate::CallId).

/// GET → [`Hello`](crate::Hello): liveness and what the guest is.
pub const HELLO: &str = "/v1/hello";
/// GET → [`Usage`](crate::Usage): what the workspace uses now.
pub const USAGE: &str = "/v1/usage";
/// POST [`HandOver`](crate::HandOver) → 204, when it is kept.
pub const HAND_OVER: &str = "/v1/hand-over";
/// POST [`Restored`](crate::machine::Restored) → [`Hello`](crate::Hello), when the guest has taken note of it. Only
/// where it is PID 1 of a virtual machine.
pub const RESTORED: &str = "/v1/machine/restored";
/// POST [`LastEnd`](crate::LastEnd) → 204: why the executions that were lost before this boot were.
pub const LAST_END: &str = "/v1/last-end";
/// POST: end all processes in order and then the guest itself.
pub const SHUTDOWN: &str = "/v1/shutdown";

/// POST [`BashRequest`](crate::tools::BashRequest) → [`BashResult`](crate::tools::BashResult), when the shell has
/// exited.
pub const BASH: &str = "/v1/tools/bash";
/// POST [`ReadRequest`](crate::tools::ReadRequest) → [`ReadResult`](crate::tools::ReadResult).
pub const READ: &str = "/v1/tools/read";
/// POST [`WriteRequest`](crate::tools::WriteRequest) → [`WriteResult`](crate::tools::WriteResult).
pub const WRITE: &str = "/v1/tools/write";
/// POST [`EditRequest`](crate::tools::EditRequest) → [`EditResult`](crate::tools::EditResult).
pub const EDIT: &str = "/v1/tools/edit";
/// POST [`GlobRequest`](crate::tools::GlobRequest) → [`GlobResult`](crate::tools::GlobResult).
pub const GLOB: &str = "/v1/tools/glob";
/// POST [`GrepRequest`](crate::tools::GrepRequest) → [`GrepResult`](crate::tools::GrepResult).
pub const GREP: &str = "/v1/tools/grep";
/// POST [`GitRequest`](crate::tools::GitRequest) → [`GitResult`](crate::tools::GitResult).
pub const GIT: &str = "/v1/tools/git";

/// POST [`StartRequest`](crate::execution::StartRequest) → [`Execution`](crate::Execution), at once.
/// GET → [`ExecutionList`](crate::execution::ExecutionList), newest first.
pub const EXECUTIONS: &str = "/v1/executions";
/// GET → [`Execution`](crate::Execution).
pub const EXECUTION: &str = "/v1/executions/{id}";
/// GET [`OutputQuery`](crate::execution::OutputQuery) → a stream of [`frame`](crate::frame)s.
pub const OUTPUT: &str = "/v1/executions/{id}/output";
/// POST [`SignalRequest`](crate::execution::SignalRequest) → 204.
pub const SIGNAL: &str = "/v1/executions/{id}/signal";
/// POST raw bytes → 204 when they are written to the process. [`StdinQuery`](crate::execution::StdinQuery).
pub const STDIN: &str = "/v1/executions/{id}/stdin";
/// POST → [`Execution`](crate::Execution), when the whole tree is gone (SIGTERM, 5 s, SIGKILL).
pub const CANCEL: &str = "/v1/executions/{id}/cancel";
/// GET → [`BashResult`](crate::tools::BashResult), when the execution has ended. Repeatable.
pub const WAIT: &str = "/v1/executions/{id}/wait";

/// POST [`SpawnChild`](crate::child::SpawnChild) → [`ChildStatus`](crate::ChildStatus), when its program runs.
/// GET → [`ChildList`](crate::child::ChildList).
pub const CHILDREN: &str = "/v1/children";
/// GET → [`ChildStatus`](crate::ChildStatus). DELETE → 204: a child that has ended is forgotten.
pub const CHILD: &str = "/v1/children/{id}";
/// POST [`NoteRequest`](crate::child::NoteRequest) → 204.
pub const CHILD_NOTE: &str = "/v1/children/{id}/note";
/// POST [`OffsetQuery`](crate::child::OffsetQuery) + acknowledged offsets → raw output; see [`child`](crate::child).
pub const CHILD_STDOUT: &str = "/v1/children/{id}/stdout";
/// POST raw input → offsets that the child has got to; see [`child`](crate::child).
pub const CHILD_STDIN: &str = "/v1/children/{id}/stdin";
/// POST → 204: the child reads the end of its input after what it has been given.
pub const CHILD_CLOSE_STDIN: &str = "/v1/children/{id}/close-stdin";
/// GET [`OffsetQuery`](crate::child::OffsetQuery) → raw bytes of standard error, those of its end that are kept.
pub const CHILD_STDERR: &str = "/v1/children/{id}/stderr";
/// POST [`SignalRequest`](crate::execution::SignalRequest) → 204.
pub const CHILD_SIGNAL: &str = "/v1/children/{id}/signal";
/// POST [`EndRequest`](crate::child::EndRequest) → [`ChildStatus`](crate::ChildStatus), when its whole tree is gone.
pub const CHILD_END: &str = "/v1/children/{id}/end";
/// GET → [`ChildStatus`](crate::ChildStatus), when it has ended. Repeatable.
pub const CHILD_WAIT: &str = "/v1/children/{id}/wait";
/// POST [`TunnelQuery`](crate::child::TunnelQuery) + raw bytes → raw bytes: one TCP connection.
pub const TUNNEL: &str = "/v1/tunnel";

/// GET [`PathQuery`](crate::files::PathQuery) → raw bytes; honours `Range: bytes=N-` and `bytes=N-M`.
/// PUT [`UploadQuery`](crate::files::UploadQuery) + raw bytes → [`FileInfo`](crate::files::FileInfo), atomically.
pub const FILE_CONTENT: &str = "/v1/files/content";
/// GET [`PathQuery`](crate::files::PathQuery) → an uncompressed tar of the file or directory.
/// PUT [`PathQuery`](crate::files::PathQuery) + an uncompressed tar → 204, unpacked below the directory.
pub const FILE_ARCHIVE: &str = "/v1/files/archive";
/// GET [`PathQuery`](crate::files::PathQuery) → [`FileInfo`](crate::files::FileInfo).
pub const FILE_STAT: &str = "/v1/files/stat";
/// GET [`PathQuery`](crate::files::PathQuery) → [`FileList`](crate::files::FileList).
pub const FILE_LIST: &str = "/v1/files/list";
/// POST [`PathRequest`](crate::files::PathRequest) → [`FileInfo`](crate::files::FileInfo), parents made too.
pub const FILE_MKDIR: &str = "/v1/files/mkdir";
/// POST [`MoveRequest`](crate::files::MoveRequest) → [`FileInfo`](crate::files::FileInfo).
pub const FILE_MOVE: &str = "/v1/files/move";
/// POST [`RemoveRequest`](crate::files::RemoveRequest) → 204.
pub const FILE_REMOVE: &str = "/v1/files/remove";

/// GET [`OutcomeQuery`](crate::call::OutcomeQuery) → [`CallOutcome`](crate::CallOutcome). A call that is not known is
/// refused from then on.
pub const CALL: &str = "/v1/calls/{id}";

/// A route with its `{id}` filled in.
pub fn with_id(route: &str, id: &crate::ExecutionId) -> String {
    route.replace("{id}", id.as_str())
}

/// A route about a call with its `{id}` filled in.
pub fn with_call(route: &str, id: &crate::CallId) -> String {
    route.replace("{id}", id.as_str())
}

/// A route about a child with its `{id}` filled in.
pub fn with_child(route: &str, id: &crate::ChildId) -> String {
    route.replace("{id}", id.as_str())
}
