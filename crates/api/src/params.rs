//! Parameters of paths, for the OpenAPI document; [`extract`](crate::extract) reads them.

use utoipa::IntoParams;
use uuid::Uuid;

/// The workspace in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct WorkspaceParam {
    /// The workspace's id.
    id: Uuid,
}

/// The snapshot in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct SnapshotParam {
    /// The snapshot's id.
    id: Uuid,
}

/// The leftover in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct LeftoverParam {
    /// The leftover's id.
    id: Uuid,
}

/// The hosted MCP server in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct McpServerParam {
    /// The server's id or name.
    id: String,
}

/// The workspace and the execution in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct ExecutionParams {
    /// The workspace's id.
    id: Uuid,
    /// The execution's id.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    execution_id: String,
}
