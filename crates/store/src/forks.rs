//! The admission of the copies of a workspace: all of them, or none.

use emergent_types::{SnapshotId, WorkspaceId};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use crate::{
    IdempotencyClaim, NewSnapshotRow, ProjectId, QuotaReached, QuotaUse, SnapshotRow, Store, StoreError, WorkspaceRow,
    admission::{claim_key, insert_if_room, to_admit},
    connection::Alone,
    entity::workspace::{Column, Entity},
    error::Doing as _,
    names,
    quotas::over_quota,
    snapshots::insert_snapshot_if_room,
};

/// Whether the copies of a workspace were let in.
#[derive(Debug, Clone, PartialEq)]
pub enum ForkAdmission {
    /// The copies were let in: their rows and that of the snapshot between them and the workspace say `creating`.
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
        copies: Vec<WorkspaceRow>,
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
        // Dropping the transaction takes all of it back.
        let rows = copies.into_iter().map(to_admit).collect::<Vec<_>>();
        for row in &rows {
            if let Some(name) = &row.name
                && let Some(holder) = names::holder(&transaction, row.project, name).await?
            {
                return Ok(ForkAdmission::NameTaken(holder));
            }
            if !insert_if_room(&transaction, row, limit).await? {
                let wanted = QuotaUse::of_workspace(row.spec.kind, &row.spec.limits, true);
                let reached = over_quota(&transaction, row.project, &wanted).await?;
                return Ok(reached.map_or(ForkAdmission::Full, ForkAdmission::OverQuota));
            }
        }
        let between = match insert_snapshot_if_room(&transaction, between).await? {
            Ok(between) => between,
            Err(reached) => return Ok(ForkAdmission::OverQuota(reached)),
        };
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
