//! Lets the copies of a workspace in: all of them, or none.

use emergent_provider::{SnapshotId, WorkspaceId};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use crate::{
    IdempotencyClaim, NewSnapshotRow, NewWorkspaceRow, ProjectId, QuotaReached, SnapshotRow, SnapshotState, Store,
    StoreError, WorkspaceRow,
    admission::{claim_key, insert_if_room, over_quota},
    connection::Alone,
    entity::{
        snapshot,
        workspace::{Column, Entity},
    },
    error::Doing as _,
    installation::now,
    names,
    snapshot_row::new_values,
};

/// Whether the copies of a workspace were let in.
#[derive(Debug, Clone, PartialEq)]
pub enum ForkAdmission {
    /// They were: their rows and that of the snapshot between them and the workspace say `creating`.
    Admitted(Box<SnapshotRow>, Vec<WorkspaceRow>),
    /// The same request came before, and made the workspaces that are made from this snapshot.
    Repeated(SnapshotId),
    /// Another request came before with the same key. Nothing was made.
    KeyTaken,
    /// There is no room for all of them. Nothing was made.
    Full,
    /// The project may not have that much more. Nothing was made.
    OverQuota(QuotaReached),
    /// This workspace of the project has one of the names already. Nothing was made.
    NameTaken(WorkspaceId),
}

// === impl Store ===

impl Store {
    /// Records a snapshot and the workspaces that are to be made from it, if all of them may be let in under `limit`
    /// (see [`Store::admit`]).
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was made then.
    pub async fn admit_forks(
        &self,
        between: NewSnapshotRow,
        copies: Vec<NewWorkspaceRow>,
        limit: u32,
        claim: Option<IdempotencyClaim>,
    ) -> Result<ForkAdmission, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin admitting copies of a workspace").await?;
        if let Some(claim) = claim
            && let Some(earlier) = claim_key(&transaction, between.project, between.id.as_uuid(), &claim).await?
        {
            let same = earlier.request_hash == claim.request_hash;
            let repeated = ForkAdmission::Repeated(earlier.workspace_id.into());
            return Ok(if same { repeated } else { ForkAdmission::KeyTaken });
        }
        let rows = copies.into_iter().map(NewWorkspaceRow::into_row).collect::<Vec<_>>();
        for row in &rows {
            if let Some(name) = &row.name
                && let Some(holder) = names::holder(&transaction, row.project, name).await?
            {
                return Ok(ForkAdmission::NameTaken(holder));
            }
            if !insert_if_room(&transaction, row, limit).await? {
                // Dropping the transaction takes all of it back.
                let reached = over_quota(&transaction, row.project, &row.limits, true).await?;
                return Ok(reached.map_or(ForkAdmission::Full, ForkAdmission::OverQuota));
            }
        }
        let state = SnapshotState::Creating;
        let between = SnapshotRow { new: between, state, taken: None, created_at: now(), ready_at: None };
        let insert = snapshot::Entity::insert(new_values(&between));
        insert.exec_without_returning(&transaction).await.doing("record a snapshot")?;
        transaction.commit().await.doing("admit copies of a workspace")?;
        Ok(ForkAdmission::Admitted(Box::new(between), rows))
    }

    /// The workspaces of a project that were made from a snapshot, destroyed or not, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_made_from(
        &self,
        project: ProjectId,
        snapshot: SnapshotId,
    ) -> Result<Vec<WorkspaceRow>, StoreError> {
        let rows = Entity::find()
            .filter(Column::ProjectId.eq(project.as_uuid()))
            .filter(Column::SnapshotId.eq(snapshot.as_uuid()))
            .order_by_asc(Column::CreatedAt)
            .order_by_asc(Column::Id);
        let rows = rows.all(self.reader.connection()).await.doing("list the workspaces of a snapshot")?;
        rows.into_iter().map(WorkspaceRow::try_from).collect()
    }
}
