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

/// The name of a call that changes something.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct CallParam {
    /// Names the call, so that `GET …/calls/{call_id}` tells what came of it when its answer is lost. The server makes
    /// a name where there is none.
    #[param(rename = "Emergent-Call", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    call_id: Option<String>,
}

/// The workspace and the call that the path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct CallParams {
    /// The workspace's id.
    id: Uuid,
    /// The call's id.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    call_id: String,
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
