//! Copies of a workspace: takes a snapshot that nobody sees, makes workspaces from it, and removes the snapshot.

use std::{collections::BTreeSet, sync::Arc};

use emergent_store::{
    ErrorReason, ForkAdmission, NewSnapshotRow, NewWorkspaceRow, ProjectId, SnapshotRow, WorkspaceRow,
};
use emergent_types::{WorkspaceId, error_chain};
use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::sync::OwnedRwLockWriteGuard;
use tracing::Instrument as _;

use super::{
    basis::{Basis, fill_in},
    claim, snapshot_row,
};
use crate::{
    IdempotencyKey, NewForks, NewSnapshot, NewWorkspace, NewWorkspaceError, SnapshotError, Workspace,
    audit::inherit,
    orchestrator::{Orchestrator, propagate},
    placement::providers::Choice,
    workspace::{
        create::{Order, RETRY_AFTER, new_row},
        registry::{Entry, WorkspaceGuard},
        request_hash::request_hash,
        validate::{check, invalid},
    },
};

/// How many copies are made at once.
const TOGETHER: usize = 4;
/// The longest name that still has room for a number.
const NAME_ROOM: usize = 120;

/// One copy that is to be made.
struct Copy {
    entry: Arc<Entry>,
    turn: WorkspaceGuard,
    order: Order,
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Admits copies of a workspace and has a task make them.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: NewForks,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Workspace>, SnapshotError> {
        let act = self.audit.begin(project, Some(id), "fork").with("count", request.count);
        let result = self.take_in_fork(project, id, request, key).await;
        act.end(&result);
        result
    }

    async fn take_in_fork(
        self: &Arc<Self>,
        project: ProjectId,
        id: WorkspaceId,
        request: NewForks,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Workspace>, SnapshotError> {
        if !(1..=NewForks::MOST).contains(&request.count) {
            return Err(invalid("count", format!("takes 1 to {}", NewForks::MOST)).into());
        }
        let entry = self.to_be_copied(project, id).await?;
        let core = Arc::clone(self);
        let begin = async move { core.begin_fork(entry, request, key).await };
        self.tasks.spawn(inherit(begin.in_current_span())).await.unwrap_or_else(|error| propagate(error))
    }

    async fn begin_fork(
        self: Arc<Self>,
        entry: Arc<Entry>,
        request: NewForks,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Workspace>, SnapshotError> {
        let turn = entry.turn().await;
        // The snapshot between is a copy, too.
        let source = self.copied_row(&entry, 1 + request.count).await?;
        let claim = key.map(|key| {
            let asked = request_hash(&request.request).to_vec();
            claim(&key, json!(["fork", entry.id.to_string(), request.count, asked]))
        });
        let name = source.name.clone();
        let between = snapshot_row(source, NewSnapshot::default(), true);
        let taken = self.store.workspace_names(entry.project).await?;
        let asked = requests(request, name, &between, &taken)?;
        let rows = asked.iter().map(|request| self.copy_row(request, &between)).collect::<Result<Vec<_>, _>>()?;
        let admissions = rows.iter().map(|row| self.admissions.begin(row.id)).collect::<Vec<_>>();
        let alone = self.snapshot_locks.of(between.id).write_owned().await;
        let (kind, limit) = (between.kind, self.config.places(between.kind));
        let admitted = self.store.admit_forks(between, rows, limit, claim).await?;
        let (between, rows) = match admitted {
            ForkAdmission::Admitted(between, rows) => (*between, rows),
            ForkAdmission::Repeated(earlier) => {
                let made = self.store.workspaces_made_from(entry.project, earlier).await?;
                return Ok(made.into_iter().map(|row| Workspace::new(row, None)).collect());
            }
            ForkAdmission::KeyTaken => return Err(NewWorkspaceError::IdempotencyMismatch.into()),
            ForkAdmission::NameTaken(holder) => return Err(NewWorkspaceError::NameTaken { holder }.into()),
            ForkAdmission::OverQuota(reached) => {
                return Err(NewWorkspaceError::OverQuota { reached, retry_after: RETRY_AFTER }.into());
            }
            ForkAdmission::Full => {
                return Err(NewWorkspaceError::LimitReached { kind, limit, retry_after: RETRY_AFTER }.into());
            }
        };
        let mut copies = Vec::new();
        for (row, request) in rows.iter().zip(asked) {
            let (copy, turn) = self.enter_new(row).await;
            copies.push(Copy { entry: copy, turn, order: self.order(row, request.environment) });
        }
        drop(admissions);
        let span = tracing::info_span!("fork", workspace = %entry.id, snapshot = %between.new.id);
        let core = Arc::clone(&self);
        let drive = async move { core.drive_fork(entry, turn, between, alone, copies).await };
        self.tasks.spawn(inherit(drive.instrument(span)));
        Ok(rows.into_iter().map(|row: WorkspaceRow| Workspace::new(row, None)).collect())
    }

    fn copy_row(&self, request: &NewWorkspace, from: &NewSnapshotRow) -> Result<NewWorkspaceRow, NewWorkspaceError> {
        let checked = check(request, &self.config, self.images.admitted())?;
        let basis = Basis::locked(from);
        Ok(new_row(from.project, from.server, request, &checked, &Choice::only(from.provider), None, Some(&basis)))
    }

    async fn drive_fork(
        self: Arc<Self>,
        entry: Arc<Entry>,
        turn: WorkspaceGuard,
        between: SnapshotRow,
        alone: OwnedRwLockWriteGuard<()>,
        copies: Vec<Copy>,
    ) {
        let id = between.new.id;
        let taken = self.drive_snapshot(&entry, id).await;
        // The workspace goes on while its copies are made.
        drop(turn);
        match taken {
            Ok(()) => {
                let shared = alone.downgrade();
                stream::iter(copies).for_each_concurrent(TOGETHER, |copy| self.make_copy(copy)).await;
                drop(shared);
            }
            Err(message) => {
                for copy in copies {
                    self.give_up_copy(copy, &message).await;
                }
                drop(alone);
            }
        }
        let _alone = self.snapshot_locks.of(id).write_owned().await;
        if let Err(error) = self.remove_snapshot(&between).await {
            tracing::warn!(reason = error_chain(&error), "the snapshot of a fork goes with the next reconciliation");
        }
    }

    fn make_copy(self: &Arc<Self>, copy: Copy) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!("create", workspace = %copy.entry.id);
        let core = Arc::clone(self);
        async move { core.drive(copy.entry, copy.turn, copy.order).await }.instrument(span)
    }

    async fn give_up_copy(&self, copy: Copy, why: &str) {
        let message = format!("the workspace that it was to be a copy of could not be copied: {why}");
        if let Err(error) = self.fail(&copy.entry, ErrorReason::CreateFailed, message).await {
            tracing::error!(reason = error_chain(&error), "the failure could not be recorded");
        }
    }
}

/// Makes the request of each copy. Copies that are numbered get the first numbers whose names are free.
fn requests(
    asked: NewForks,
    source_name: Option<String>,
    from: &NewSnapshotRow,
    taken: &BTreeSet<String>,
) -> Result<Vec<NewWorkspace>, NewWorkspaceError> {
    let named = asked.request.name.is_some();
    let request = fill_in(asked.request, from)?;
    let base = request.name.clone().or(source_name);
    let copy = |name| NewWorkspace { name, snapshot: Some(from.id), ..request.clone() };
    let copies = asked.count as usize;
    Ok(match base {
        None => vec![copy(None); copies],
        Some(name) if named && copies == 1 => vec![copy(Some(name))],
        Some(name) => {
            let name: String = name.chars().take(NAME_ROOM).collect();
            let numbered = (1..=u32::MAX).map(|number| format!("{name}-{number}"));
            numbered.filter(|name| !taken.contains(name)).take(copies).map(|name| copy(Some(name))).collect()
        }
    })
}
