//! The removal of rows that were destroyed long ago.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use uuid::Uuid;

use crate::{
    StateKind, Store, StoreError,
    entity::{
        session,
        workspace::{Column, Entity},
    },
    error::Doing as _,
};

// === impl Store ===

impl Store {
    /// Removes the rows of at most `most` workspaces that were destroyed before `before`, with their sessions. Answers
    /// how many went; fewer than `most` means that none is left.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; then none of them went.
    pub async fn workspaces_forget(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        let transaction = self.writer.begin("begin forgetting workspaces").await?;
        let old = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::State.eq(StateKind::Destroyed.as_str()))
            .filter(Column::DestroyedAt.lt(before))
            .order_by_asc(Column::DestroyedAt)
            .limit(most)
            .into_tuple::<Uuid>()
            .all(&transaction)
            .await
            .doing("find workspaces to forget")?;
        let sessions = session::Entity::delete_many().filter(session::Column::WorkspaceId.is_in(old.iter().copied()));
        sessions.exec(&transaction).await.doing("forget sessions")?;
        let gone = Entity::delete_many().filter(Column::Id.is_in(old)).exec(&transaction).await;
        let gone = gone.doing("forget workspaces")?.rows_affected;
        transaction.commit().await.doing("forget workspaces")?;
        Ok(gone)
    }
}
