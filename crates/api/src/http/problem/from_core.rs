//! The refusals and failures of the core, as problems.

use std::time::Duration;

use chrono::SecondsFormat;
use emergent_budget::Exhausted;
use emergent_core::{
    AttachError, CallError, ChangeError, ErrorReason, Fullness, LeftoverError, ListError, LookupError,
    NewWorkspaceError, NoRoom, SessionError, SessionRow, SnapshotError, SnapshotRow, SnapshotState, SnapshotStateKind,
    SnapshotUnusable, StateKind, StoreError, TransitionError, Unavailable, Workspace, WorkspaceState,
};
use emergent_guest_client::GuestCallError;
use emergent_provider::{OperationError, ProviderKind};
use emergent_types::error_chain;

use super::{ProblemKind, Refusal};

const NOT_FOUND: &str = "your project has no workspace of this id; list them with GET /api/v1/agent/workspaces";

/// After how many seconds it is worth trying again when an engine or a workspace does not answer.
const SOON: u64 = 5;
/// The same when no provider works: that is looked into as often.
const NOT_SO_SOON: u64 = 30;

fn disabled() -> Refusal {
    let detail = "workspaces are switched off on this server; set ENABLE_AGENT_WORKSPACES=true and start it again";
    Refusal::new(ProblemKind::WorkspacesDisabled, detail)
}

fn not_found() -> Refusal {
    Refusal::new(ProblemKind::WorkspaceNotFound, NOT_FOUND)
}

fn limit_reached(error: &dyn std::error::Error, retry_after: Duration) -> Refusal {
    Refusal::new(ProblemKind::LimitReached, error.to_string()).retry_after(retry_after.as_secs().max(1))
}

fn quota_reached(error: &dyn std::error::Error, retry_after: Duration) -> Refusal {
    Refusal::new(ProblemKind::QuotaReached, error.to_string()).retry_after(retry_after.as_secs().max(1))
}

fn wrong_state(error: &dyn std::error::Error, state: StateKind) -> Refusal {
    let refusal = Refusal::new(ProblemKind::WrongState, error.to_string());
    match state {
        StateKind::Creating | StateKind::Stopping | StateKind::Starting | StateKind::Destroying => {
            refusal.retry_after(1)
        }
        StateKind::Ready | StateKind::Paused | StateKind::Stopped | StateKind::Destroyed | StateKind::Error => refusal,
    }
}

fn shutting_down(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(ProblemKind::NotReady, error.to_string()).retry_after(SOON)
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if let StoreError::Moved(_) = error {
            let detail = format!("{error}; ask again");
            return Self::new(ProblemKind::ServerAway, detail).retry_after(1);
        }
        // The chain may show paths and queries: it is for the log. The caller learns that it is not the request's
        // fault.
        tracing::error!(error = error_chain(&error), "the store failed");
        let detail = "the server's store failed; try again, and look into the server's log if it goes on";
        Self::new(ProblemKind::StoreUnavailable, detail).retry_after(SOON)
    }
}

impl From<NewWorkspaceError> for Refusal {
    fn from(error: NewWorkspaceError) -> Self {
        match error {
            NewWorkspaceError::Disabled => disabled(),
            NewWorkspaceError::Draining { .. } => {
                Self::new(ProblemKind::ServerDraining, error.to_string()).retry_after(SOON)
            }
            NewWorkspaceError::Invalid { field, message } => {
                Self::of_field(ProblemKind::InvalidValue, public_field(&field), message)
            }
            NewWorkspaceError::ImageNotAllowed { .. } => {
                Self::of_field(ProblemKind::ImageNotAllowed, "base_image", error_chain(&error))
            }
            NewWorkspaceError::NameTaken { .. } => Self::of_field(ProblemKind::NameTaken, "name", error.to_string()),
            NewWorkspaceError::LimitReached { retry_after, .. } => limit_reached(&error, retry_after),
            NewWorkspaceError::OverQuota { retry_after, .. } => quota_reached(&error, retry_after),
            NewWorkspaceError::NoRoom(source) => source.into(),
            NewWorkspaceError::NoProvider { named, ref reasons } => no_provider(&error, named, reasons),
            NewWorkspaceError::IdempotencyMismatch => Self::new(
                ProblemKind::IdempotencyMismatch,
                "this Idempotency-Key came with a different request in the last 24 hours; use a new key",
            ),
            NewWorkspaceError::Snapshot(source) => source.into(),
            NewWorkspaceError::ShuttingDown => shutting_down(&error),
            NewWorkspaceError::Store(source) => source.into(),
        }
    }
}

impl From<NoRoom> for Refusal {
    fn from(error: NoRoom) -> Self {
        let kind = match error {
            NoRoom::Disk { .. } => ProblemKind::HostDiskFull,
            NoRoom::Tasks { .. } => ProblemKind::HostFull,
        };
        Self::new(kind, error.to_string()).retry_after(NOT_SO_SOON)
    }
}

/// Only a provider that is there, and does not work, may work in a while.
fn no_provider(error: &NewWorkspaceError, named: bool, reasons: &[(ProviderKind, Unavailable)]) -> Refusal {
    let may_come = |(_, why): &(_, Unavailable)| matches!(why, Unavailable::Unhealthy(_));
    let lacks = |(_, why): &(_, Unavailable)| matches!(why, Unavailable::Lacks(_));
    match reasons {
        [(_, Unavailable::Absent(_))] if named => {
            Refusal::of_field(ProblemKind::ProviderAbsent, "provider", error.to_string())
        }
        reasons if reasons.iter().any(lacks) && !reasons.iter().any(may_come) => {
            Refusal::of_field(ProblemKind::RequirementsUnmet, "requirements", error.to_string())
        }
        _ => Refusal::new(ProblemKind::NoProvider, format!("{error}; `emergent doctor` says how to mend it"))
            .retry_after(NOT_SO_SOON),
    }
}

/// The name that a field of the core's request has in the API's.
fn public_field(field: &str) -> String {
    match field {
        "image" => "base_image".to_owned(),
        "snapshot" => "snapshot_id".to_owned(),
        "ttl" => "expires_in_seconds".to_owned(),
        "idle.after" => "idle.after_minutes".to_owned(),
        "kind" => "container_type".to_owned(),
        "limits.memory_bytes" => "resource_limits.memory".to_owned(),
        "limits.disk_bytes" => "resource_limits.disk".to_owned(),
        other => match other.strip_prefix("limits.") {
            Some(limit) => format!("resource_limits.{limit}"),
            None => other.to_owned(),
        },
    }
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Disabled => disabled(),
            LookupError::NotFound => not_found(),
            LookupError::Store(source) => source.into(),
        }
    }
}

impl From<ListError> for Refusal {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Disabled => disabled(),
            ListError::BadLimit { most } => {
                Self::of_field(ProblemKind::InvalidValue, "limit", format!("it takes 1 to {most}"))
            }
            ListError::Store(source) => source.into(),
        }
    }
}

impl From<TransitionError> for Refusal {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Disabled => disabled(),
            TransitionError::NotFound => not_found(),
            TransitionError::WrongState { state, .. } => wrong_state(&error, state),
            TransitionError::LimitReached { retry_after, .. } => limit_reached(&error, retry_after),
            TransitionError::OverQuota { retry_after, .. } => quota_reached(&error, retry_after),
            TransitionError::NoProvider(_) => {
                Self::new(ProblemKind::NoProvider, error.to_string()).retry_after(NOT_SO_SOON)
            }
            TransitionError::Engine { ref source, .. } => of_engine(source, error_chain(&error)),
            TransitionError::DestroyedLater(_) => {
                Self::new(ProblemKind::EngineUnavailable, error_chain(&error)).retry_after(SOON)
            }
            TransitionError::Guest(_) => {
                Self::new(ProblemKind::WorkspaceUnreachable, error_chain(&error)).retry_after(SOON)
            }
            TransitionError::ShuttingDown => shutting_down(&error),
            TransitionError::Store(source) => source.into(),
        }
    }
}

impl From<SnapshotUnusable> for Refusal {
    fn from(error: SnapshotUnusable) -> Self {
        match error {
            SnapshotUnusable::NotFound => {
                let detail = "your project has no snapshot of this id; list them with GET /api/v1/agent/snapshots";
                Self::new(ProblemKind::SnapshotNotFound, detail)
            }
            SnapshotUnusable::NotReady(SnapshotStateKind::Creating) => {
                Self::new(ProblemKind::SnapshotUnusable, error.to_string()).retry_after(1)
            }
            SnapshotUnusable::NotReady(_) | SnapshotUnusable::Elsewhere(_) => {
                Self::new(ProblemKind::SnapshotUnusable, error.to_string())
            }
        }
    }
}

impl From<SnapshotError> for Refusal {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Workspace(source) => source.into(),
            SnapshotError::Request(source) => source.into(),
            SnapshotError::Unusable(source) => source.into(),
            SnapshotError::Delete(ref source) => of_engine(source, error_chain(&error)),
            SnapshotError::Store(source) => source.into(),
        }
    }
}

impl From<LeftoverError> for Refusal {
    fn from(error: LeftoverError) -> Self {
        match error {
            LeftoverError::NotFound => Self::new(ProblemKind::LeftoverNotFound, error.to_string()),
            LeftoverError::Elsewhere(_) | LeftoverError::NoProvider(_) | LeftoverError::NotAdoptable { .. } => {
                Self::new(ProblemKind::LeftoverUnusable, error.to_string())
            }
            LeftoverError::Engine(ref source) => of_engine(source, error_chain(&error)),
            LeftoverError::Store(source) => source.into(),
        }
    }
}

/// Returns the answer of a request for a snapshot whose taking has failed.
pub(crate) fn of_failed_snapshot(snapshot: &SnapshotRow) -> Option<Refusal> {
    let SnapshotState::Error { message } = &snapshot.state else { return None };
    let detail = format!("snapshot {} was not taken: {message}", snapshot.new.id);
    Some(Refusal::new(ProblemKind::SnapshotFailed, detail))
}

/// Only what the engine may do in a while is worth trying again.
fn of_engine(error: &OperationError, detail: String) -> Refusal {
    match error {
        OperationError::EngineUnavailable { .. } => {
            Refusal::new(ProblemKind::EngineUnavailable, detail).retry_after(SOON)
        }
        OperationError::Gone => Refusal::new(ProblemKind::WrongState, detail),
        OperationError::Unsupported { .. } => Refusal::new(ProblemKind::UnsupportedOperation, detail),
        OperationError::Refused { .. } => Refusal::new(ProblemKind::EngineRefused, detail),
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Disabled => disabled(),
            CallError::NotFound => not_found(),
            CallError::WrongState { state, .. } => wrong_state(&error, state),
            CallError::Full(Fullness::Own { .. }) => Self::new(ProblemKind::DiskFull, error.to_string()),
            CallError::Full(Fullness::Host) => Self::new(ProblemKind::HostDiskFull, error.to_string()),
            CallError::Creating { retry_after } => {
                Self::new(ProblemKind::WrongState, error.to_string()).retry_after(retry_after.as_secs().max(1))
            }
            CallError::Restart(source) => {
                let mut refusal = Self::from(*source);
                let detail = &mut refusal.problem.detail;
                *detail = format!("the workspace was not running and could not be started again: {detail}");
                refusal
            }
            CallError::StillPaused { ref execution } => {
                Self::new(ProblemKind::WrongState, error.to_string()).with_execution(Some(execution.clone()))
            }
            CallError::Ended { ref execution, .. } => {
                Self::new(ProblemKind::WorkspaceEnded, error.to_string()).with_execution(execution.clone())
            }
            CallError::Guest(refusal) => refusal.into(),
            CallError::Channel(source) => source.into(),
            CallError::Store(source) => source.into(),
        }
    }
}

impl From<AttachError> for Refusal {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Held(session) => held(&session),
            AttachError::IdTaken => {
                let detail =
                    "this session_id names another session, or one that has ended; use a new one, or leave it out";
                Self::new(ProblemKind::SessionIdTaken, detail)
            }
            AttachError::Workspace(source) => source.into(),
        }
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Lookup(source) => source.into(),
            SessionError::NoSuchSession => Self::new(
                ProblemKind::SessionNotFound,
                "the workspace has had no session of this id; GET …/sessions lists all that it had",
            ),
            SessionError::Held(session) => held(&session),
            SessionError::NotAttached => Self::new(
                ProblemKind::SessionEnded,
                "this session is not attached to the workspace, and nobody else is; attach again with POST …/attach",
            ),
            SessionError::Store(source) => source.into(),
        }
    }
}

fn held(session: &SessionRow) -> Refusal {
    let SessionRow { holder, attached_at, .. } = session;
    let since = attached_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let detail = format!(
        "the workspace is attached by {holder:?} since {since}; wait until it detaches, or take the workspace over with \
         POST …/attach and \"take_over\": true"
    );
    Refusal::new(ProblemKind::WorkspaceAttached, detail)
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Lookup(source) => source.into(),
            ChangeError::NameTaken { .. } => Self::of_field(ProblemKind::NameTaken, "name", error.to_string()),
            ChangeError::Gone { state } => wrong_state(&error, state),
            ChangeError::Invalid { field, message } => {
                Self::of_field(ProblemKind::InvalidValue, public_field(&field), message)
            }
            ChangeError::Store(source) => source.into(),
        }
    }
}

impl From<GuestCallError> for Refusal {
    fn from(error: GuestCallError) -> Self {
        let detail = error_chain(&error);
        match error {
            GuestCallError::Refused(refusal) => refusal.into(),
            GuestCallError::Unreachable(_) => Self::new(ProblemKind::WorkspaceUnreachable, detail).retry_after(SOON),
            GuestCallError::Interrupted { execution_id, call_id, .. } => {
                Self::new(ProblemKind::CallInterrupted, detail).with_execution(execution_id).with_call(call_id)
            }
            GuestCallError::Timeout { execution_id, call_id, .. } => {
                Self::new(ProblemKind::CallTimedOut, detail).with_execution(execution_id).with_call(call_id)
            }
            GuestCallError::Exhausted(source) => source.into(),
            GuestCallError::Nonsense(_) => Self::new(ProblemKind::CallInterrupted, detail),
        }
    }
}

impl From<Exhausted> for Refusal {
    fn from(error: Exhausted) -> Self {
        let kind = match error {
            Exhausted::Project(_) | Exhausted::Calls(_) => ProblemKind::TooMuchUnderWay,
            Exhausted::Server(_) => ProblemKind::ServerBusy,
        };
        Self::new(kind, error.to_string()).retry_after(SOON)
    }
}

/// Returns the answer of a create whose workspace is in `error`.
pub(crate) fn of_failed_create(workspace: &Workspace) -> Option<Refusal> {
    let WorkspaceState::Error { reason, message } = &workspace.row.state else { return None };
    let detail = format!("workspace {} was not made ({reason}): {message}", workspace.row.id);
    Some(of_fault(*reason, detail).with_workspace(workspace.row.id))
}

/// Only what may be otherwise in a while is worth trying again.
fn of_fault(reason: ErrorReason, detail: String) -> Refusal {
    match reason {
        ErrorReason::EngineUnavailable => Refusal::new(ProblemKind::EngineUnavailable, detail).retry_after(SOON),
        ErrorReason::CreateFailed
        | ErrorReason::CreateInterrupted
        | ErrorReason::Oom
        | ErrorReason::ProcessLimit
        | ErrorReason::DiskFull
        | ErrorReason::Killed
        | ErrorReason::StartFailed
        | ErrorReason::EngineLost => Refusal::new(ProblemKind::WorkspaceFailed, detail),
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::header, response::IntoResponse as _};

    use super::*;

    #[test]
    fn a_create_is_worth_trying_again_only_where_the_engine_did_not_answer() {
        for reason in ErrorReason::ALL {
            let response = of_fault(reason, "told".to_owned()).into_response();
            let retry = response.headers().contains_key(header::RETRY_AFTER);
            let expected = if reason == ErrorReason::EngineUnavailable { (503, true) } else { (422, false) };
            assert_eq!((response.status().as_u16(), retry), expected, "{reason}");
        }
    }

    #[test]
    fn whatever_an_absent_engine_cannot_do_says_when_to_try_again() {
        let unavailable = || OperationError::EngineUnavailable {
            engine: "Docker".to_owned(),
            advice: "start it".to_owned(),
            source: "no answer".into(),
        };
        let refusals = [
            Refusal::from(SnapshotError::Delete(unavailable())),
            Refusal::from(TransitionError::Engine { operation: "stop", source: unavailable() }),
            Refusal::from(TransitionError::NoProvider(ProviderKind::Docker)),
        ];
        for refusal in refusals {
            let response = refusal.into_response();
            let retry = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!((response.status().as_u16(), retry), (503, true));
        }
    }
}
