//! The rows of snapshots.

use emergent_provider::Taken;
use emergent_types::{ServerId, SnapshotId, WorkspaceId};
use sea_orm::{
    ColumnTrait as _, Condition, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};

use crate::{
    Cursor, IdempotencyClaim, NewSnapshotRow, Page, PageRequest, ProjectId, QuotaReached, QuotaUse, SnapshotRow,
    SnapshotState, SnapshotStateKind, Store, StoreError,
    admission::{claim_key, insert_if},
    connection::Alone,
    entity::snapshot::{Column, Entity},
    error::Doing as _,
    model::{snapshot_row::new_values, words::signed},
    projects::missing,
    quotas,
    time::now,
    workspaces::label_is,
};

/// The snapshots of a project to list. Every part narrows the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// In this state.
    pub state: Option<SnapshotStateKind>,
    /// Of this workspace.
    pub workspace: Option<WorkspaceId>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
}

/// Whether a snapshot was recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum SnapshotAdmission {
    /// The snapshot was recorded; its row says `creating`.
    Admitted(Box<SnapshotRow>),
    /// The same request came before and made this one.
    Repeated(SnapshotId),
    /// Another request came before with the same key. Nothing was recorded.
    KeyTaken,
    /// The project may not have that much more. Nothing was recorded.
    OverQuota(QuotaReached),
}

/// Records a snapshot as `creating` if its project's quotas have room for it.
pub(crate) async fn insert_snapshot_if_room(
    transaction: &DatabaseTransaction,
    new: NewSnapshotRow,
) -> Result<Result<SnapshotRow, QuotaReached>, StoreError> {
    let (project, wanted) = (new.project, QuotaUse::of_snapshot(&new.spec.limits));
    let row = SnapshotRow { new, state: SnapshotState::Creating, taken: None, created_at: now(), ready_at: None };
    let room = quotas::has_room(project, &wanted);
    if insert_if(transaction, &new_values(&row), room).await.doing("record a snapshot")? {
        return Ok(Ok(row));
    }
    let reached = quotas::over_quota(transaction, project, &wanted).await?;
    Ok(Err(reached.ok_or_else(|| missing(&project.to_string())).doing("find a project")?))
}

// === impl Store ===

impl Store {
    /// Records a snapshot as `creating`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was recorded then.
    pub async fn snapshots_admit(
        &self,
        new: NewSnapshotRow,
        claim: Option<IdempotencyClaim>,
    ) -> Result<SnapshotAdmission, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin recording a snapshot").await?;
        if let Some(claim) = claim
            && let Some(earlier) = claim_key(&transaction, new.project, new.id.as_uuid(), &claim).await?
        {
            let same = earlier.request_hash == claim.request_hash;
            let repeated = SnapshotAdmission::Repeated(earlier.workspace_id.into());
            return Ok(if same { repeated } else { SnapshotAdmission::KeyTaken });
        }
        let row = match insert_snapshot_if_room(&transaction, new).await? {
            Ok(row) => row,
            Err(reached) => return Ok(SnapshotAdmission::OverQuota(reached)),
        };
        transaction.commit().await.doing("record a snapshot")?;
        Ok(SnapshotAdmission::Admitted(Box::new(row)))
    }

    /// One snapshot of a project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_get(&self, project: ProjectId, id: SnapshotId) -> Result<Option<SnapshotRow>, StoreError> {
        let row = self.snapshots_find(id).await?;
        Ok(row.filter(|row| row.new.project == project))
    }

    /// Returns one snapshot, of any project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_find(&self, id: SnapshotId) -> Result<Option<SnapshotRow>, StoreError> {
        let row = Entity::find_by_id(id.as_uuid()).one(self.reader.connection()).await.doing("read a snapshot")?;
        row.map(SnapshotRow::try_from).transpose()
    }

    /// A page of a project's snapshots, newest first, without temporary ones. `page.limit` is taken as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_list(
        &self,
        project: ProjectId,
        filter: &SnapshotFilter,
        page: PageRequest,
    ) -> Result<Page<SnapshotRow>, StoreError> {
        let mut select = Entity::find()
            .filter(Column::ProjectId.eq(project.as_uuid()))
            .filter(Column::Temporary.eq(false))
            .filter(filter.condition());
        if let Some(Cursor { created_at, id }) = page.cursor {
            let same_instant = Column::CreatedAt.eq(created_at).and(Column::Id.lt(id));
            select = select.filter(Column::CreatedAt.lt(created_at).or(same_instant));
        }
        let one_more = u64::from(page.limit) + 1;
        let newest_first = select.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).limit(one_more);
        let rows = newest_first.all(self.reader.connection()).await.doing("list snapshots")?;
        let more = rows.len() as u64 == one_more;
        let mut items = rows.into_iter().map(SnapshotRow::try_from).collect::<Result<Vec<_>, _>>()?;
        if more {
            items.pop();
        }
        let last = items.last().filter(|_| more);
        let next = last.map(|row| Cursor { created_at: row.created_at, id: row.new.id.as_uuid() });
        Ok(Page { items, next })
    }

    /// Every snapshot that a server keeps.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_of(&self, server: ServerId) -> Result<Vec<SnapshotRow>, StoreError> {
        let rows = Entity::find().filter(Column::ServerId.eq(server.as_uuid())).all(self.reader.connection());
        rows.await.doing("list a server's snapshots")?.into_iter().map(SnapshotRow::try_from).collect()
    }

    /// Records a state. False when there is no such row (any more).
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_record(&self, id: SnapshotId, to: &SnapshotState) -> Result<bool, StoreError> {
        let message = if let SnapshotState::Error { message } = to { Some(message.as_str()) } else { None };
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .col_expr(Column::State, Expr::value(to.word().as_str()))
            .col_expr(Column::ErrorMessage, Expr::value(message));
        let changed = update.exec(self.writer.connection()).await.doing("record a snapshot's state")?;
        Ok(changed.rows_affected > 0)
    }

    /// Records that a snapshot is taken, and how large it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_record_taken(&self, id: SnapshotId, taken: Taken) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::State.eq(SnapshotStateKind::Creating.as_str()))
            .col_expr(Column::State, Expr::value(SnapshotStateKind::Ready.as_str()))
            .col_expr(Column::RootBytes, Expr::value(signed(taken.root_bytes)))
            .col_expr(Column::WorkspaceBytes, Expr::value(signed(taken.workspace_bytes)))
            .col_expr(Column::ReadyAt, Expr::value(now()));
        update.exec(self.writer.connection()).await.doing("record a snapshot")?;
        Ok(())
    }

    /// Forgets a snapshot of which nothing is left.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshots_forget(&self, id: SnapshotId) -> Result<(), StoreError> {
        let delete = Entity::delete_by_id(id.as_uuid()).exec(self.writer.connection());
        delete.await.doing("forget a snapshot")?;
        Ok(())
    }
}

// === impl SnapshotFilter ===

impl SnapshotFilter {
    fn condition(&self) -> Condition {
        let mut condition = Condition::all();
        if let Some(state) = self.state {
            condition = condition.add(Column::State.eq(state.as_str()));
        }
        if let Some(workspace) = self.workspace {
            condition = condition.add(Column::WorkspaceId.eq(workspace.as_uuid()));
        }
        if let Some(name) = &self.name {
            condition = condition.add(Column::Name.eq(name.as_str()));
        }
        if let Some((key, value)) = &self.label {
            condition = condition.add(label_is(Column::Labels, key, value));
        }
        condition
    }
}
