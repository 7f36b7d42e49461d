//! Copies of a workspace: takes a snapshot that nobody sees, makes workspaces from it, and removes the snapshot.

use std::{collections::BTreeSet, sync::Arc};

use emergent_store::{ErrorReason, ForkAdmission, NewSnapshotRow, ProjectId, SnapshotRow, WorkspaceRow};
use emergent_types::{WorkspaceId, error_chain};
use futures::{StreamExt as _, stream};
use tokio::sync::OwnedRwLockWriteGuard;
use tracing::Instrument as _;

use super::{
    SnapshotError, Snapshots,
    request::{NewForks, NewSnapshot},
    snapshot_row,
};
use crate::{
    audit::inherit,
    creation::{NewWorkspaceError, Order, basis::fill_in},
    idempotency::IdempotencyKey,
    lifecycle::RETRY_AFTER,
    workspace::{
        Workspace,
        entry::{Entry, WorkspaceGuard},
        request::NewWorkspace,
        validate::invalid,
    },
};

/// The number of copies that are made at once.
const TOGETHER: usize = 4;
/// The longest name that still has room for a number.
const NAME_ROOM: usize = 120;

/// One copy that is to be made.
struct Copy {
    guard: WorkspaceGuard,
    order: Order,
}

// === impl Snapshots ===

impl Snapshots {
    /// Records copies of a workspace as `creating` and returns; a task of the service makes them. Either all copies are
    /// admitted or none is.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was made then.
    pub async fn fork(
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
        let snapshots = Arc::clone(self);
        let begin = async move { snapshots.begin_fork(entry, request, key).await };
        self.tasks.run(begin.in_current_span()).await
    }

    async fn begin_fork(
        self: Arc<Self>,
        entry: Arc<Entry>,
        request: NewForks,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Workspace>, SnapshotError> {
        let guard = entry.guard().await;
        // The snapshot between is a copy, too.
        let source = self.copied_row(&guard, 1 + request.count).await?;
        let claim = key.map(|key| key.of_forks(entry.id, request.count, &request.request));
        let name = source.name.clone();
        let between = snapshot_row(source, NewSnapshot::default(), true);
        let taken = self.store.workspace_names(entry.project).await?;
        let asked = requests(request, name, &between, &taken)?;
        let placed = asked.into_iter().map(|request| self.creation.place_copy(request, &between));
        let placed = placed.collect::<Result<Vec<_>, _>>()?;
        let rows = placed.iter().map(|copy| copy.row(between.project, between.server, None)).collect::<Vec<_>>();
        let admissions = rows.iter().map(|row| self.admissions.begin(row.id)).collect::<Vec<_>>();
        let alone = self.locks.of(between.id).write_owned().await;
        let (kind, limit) = (between.spec.kind, self.config.places(between.spec.kind));
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
        for (row, placed) in rows.iter().zip(placed) {
            let guard = self.guests.enter_new(row).await;
            copies.push(Copy { guard, order: self.creation.order(row, placed, None) });
        }
        drop(admissions);
        let span = tracing::info_span!("fork", workspace = %entry.id, snapshot = %between.new.id);
        let snapshots = Arc::clone(&self);
        let drive = async move { snapshots.drive_fork(guard, between, alone, copies).await };
        self.tasks.spawn(inherit(drive.instrument(span)));
        Ok(rows.into_iter().map(|row: WorkspaceRow| Workspace::new(row, None)).collect())
    }

    async fn drive_fork(
        self: Arc<Self>,
        mut guard: WorkspaceGuard,
        between: SnapshotRow,
        alone: OwnedRwLockWriteGuard<()>,
        copies: Vec<Copy>,
    ) {
        let id = between.new.id;
        let taken = self.drive_snapshot(&mut guard, id).await;
        // The workspace goes on while its copies are made.
        drop(guard);
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
        let _alone = self.locks.of(id).write_owned().await;
        if let Err(error) = self.remove_snapshot(&between).await {
            tracing::warn!(reason = error_chain(&error), "the snapshot of a fork goes with the next reconciliation");
        }
    }

    fn make_copy(&self, copy: Copy) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!("create", workspace = %copy.guard.id);
        let creation = Arc::clone(&self.creation);
        async move { creation.provision(copy.guard, copy.order).await }.instrument(span)
    }

    async fn give_up_copy(&self, mut copy: Copy, why: &str) {
        let message = format!("the workspace that it was to be a copy of could not be copied: {why}");
        if let Err(error) = self.lifecycle.fail(&mut copy.guard, ErrorReason::CreateFailed, message).await {
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
