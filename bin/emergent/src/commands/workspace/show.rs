//! The display of workspaces, for people.

use chrono::{DateTime, Utc};
use emergent_api::{
    http::size::ByteSize,
    resources::workspaces::{
        idle::IdleActionName,
        view::{State, WorkspaceView},
    },
};

use crate::print::{self, printable};

/// Prints a line for each workspace.
pub(super) fn table(workspaces: &[WorkspaceView]) {
    print::table(
        ["id", "name", "state", "provider", "runtime", "image", "created", "expires"],
        workspaces.iter().map(|workspace| {
            let state = match &workspace.error {
                Some(fault) => format!("error ({})", fault.reason),
                None => workspace.state.as_str().to_owned(),
            };
            [
                workspace.id.to_string(),
                workspace.name.clone().unwrap_or_default(),
                state,
                workspace.provider.as_str().to_owned(),
                workspace.runtime.clone().unwrap_or_default(),
                workspace.base_image.clone(),
                format!("{} ago", span(Utc::now() - workspace.created_at)),
                match workspace.state {
                    State::Destroyed => String::new(),
                    _ => workspace
                        .expires_at
                        .map_or_else(|| "never".to_owned(), |at| format!("in {}", span(at - Utc::now()))),
                },
            ]
        }),
    );
}

/// Prints why workspaces failed, and what to do about each, to standard error.
pub(super) fn faults(workspaces: &[WorkspaceView]) {
    for workspace in workspaces {
        if let Some(next) = what_next(workspace) {
            let fault = workspace.error.as_ref().map(|fault| fault.message.as_str()).unwrap_or_default();
            print::notice(&format!("{}: {}\n  {next}\n", workspace.id, printable(fault)));
        }
    }
}

/// Returns the next step for a workspace that failed; `None` for one that did not.
pub(super) fn what_next(workspace: &WorkspaceView) -> Option<String> {
    let id = workspace.id;
    Some(match workspace.error.as_ref()?.reason.as_str() {
        // It has no files: it is listed only to tell why.
        "create_failed" | "engine_unavailable" | "create_interrupted" | "engine_lost" => remove(&id.to_string()),
        "disk_full" => format!("files can be removed:\n  emergent workspace files rm {id} PATH"),
        _ => format!("the next command starts it again:\n  emergent workspace exec {id} -- ls -la"),
    })
}

/// The command that removes a workspace that could not be made.
pub(super) fn remove(id: &str) -> String {
    format!("it is listed until you remove it:\n  emergent workspace rm {id}")
}

/// Prints all details of a workspace.
pub(super) fn one(workspace: &WorkspaceView) {
    let limits = &workspace.resource_limits;
    let labels: Vec<_> = workspace.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let time = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "never".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
    };
    let attached =
        workspace.attached.as_ref().map(|attached| format!("{} since {}", attached.holder, time(Some(attached.since))));
    let rows = [
        ("id", workspace.id.to_string()),
        ("name", workspace.name.clone().unwrap_or_default()),
        ("labels", labels.join(" ")),
        ("state", workspace.state.as_str().to_owned()),
        (
            "reason",
            workspace.error.as_ref().map(|fault| format!("{}: {}", fault.reason, fault.message)).unwrap_or_default(),
        ),
        ("provider", workspace.provider.as_str().to_owned()),
        ("runtime", workspace.runtime.clone().unwrap_or_default()),
        ("isolation", workspace.isolation.map(|isolation| isolation.as_str().to_owned()).unwrap_or_default()),
        ("image", workspace.base_image.clone()),
        ("copy of", workspace.source_workspace_id.map(|id| id.to_string()).unwrap_or_default()),
        ("snapshot", workspace.snapshot_id.map(|id| id.to_string()).unwrap_or_default()),
        ("cpu", limits.cpu.to_string()),
        ("memory", ByteSize(limits.memory).to_string()),
        ("disk", ByteSize(limits.disk).to_string()),
        ("pids", limits.pids.to_string()),
        ("network", workspace.network.as_str().to_owned()),
        ("root", if workspace.allow_root { "allowed" } else { "not allowed" }.to_owned()),
        ("created", time(Some(workspace.created_at))),
        ("ready", workspace.ready_in_ms.map(|ms| format!("after {ms} ms")).unwrap_or_default()),
        ("last used", time(workspace.last_used_at)),
        ("expires", time(workspace.expires_at)),
        ("idle", idle(workspace)),
        ("attached", attached.unwrap_or_default()),
        ("destroyed", workspace.destroy_reason.clone().unwrap_or_default()),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        print::line(&format!("{name:<10} {}", printable(value)));
    }
    for warning in &workspace.warnings {
        print::line(&format!("{:<10} {}", "warning", printable(warning)));
    }
    if let Some(next) = what_next(workspace) {
        print::notice(&format!("{next}\n"));
    }
}

/// Describes the action on an idle workspace, and whether it was taken.
fn idle(workspace: &WorkspaceView) -> String {
    let after = workspace.idle.after_minutes;
    let policy = match workspace.idle.action {
        IdleActionName::None => return String::new(),
        IdleActionName::Pause => format!("paused after {after} min"),
        IdleActionName::Stop => format!("stopped after {after} min"),
    };
    if workspace.idle.resting { format!("{policy}; it is, and the next call resumes it") } else { policy }
}

/// Prints the warnings about weak isolation and missing limits to standard error.
pub(super) fn warnings(workspace: &WorkspaceView) {
    for warning in &workspace.warnings {
        print::notice(&format!("warning: {}\n", printable(warning)));
    }
}

/// Formats a time span in its largest unit.
pub(crate) fn span(span: chrono::TimeDelta) -> String {
    match span.num_seconds().max(0) {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7_200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
