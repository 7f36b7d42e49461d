//! The reasons for which workspaces are destroyed.

use std::fmt;

use chrono::{DateTime, Utc};
use emergent_provider::WorkspaceId;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::{Expr, ExprTrait as _, Func},
};

use crate::{
    StateWord, Store, StoreError, WorkspaceRow,
    entity::workspace::{Column, Entity},
    error::Doing as _,
    words::Word,
};

/// The reason for which a workspace, or the remains of one, is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DestroyReason {
    /// Somebody asked for the destruction.
    Requested,
    /// The workspace's time was up.
    Expired,
    /// The workspace could not be made, and its remains were removed.
    FailedCreate,
    /// The engine had the workspace, and no row accounted for it.
    Orphan,
    /// The database with the workspace's row was copied, and the copy became a server of its own. The workspace lives
    /// on at the server of the original.
    NewIdentity,
}

// === impl DestroyReason ===

impl DestroyReason {
    /// The reason's word in rows, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Expired => "expired",
            Self::FailedCreate => "failed_create",
            Self::Orphan => "orphan",
            Self::NewIdentity => "new_identity",
        }
    }
}

impl Word for DestroyReason {
    const ALL: &'static [Self] = &[Self::Requested, Self::Expired, Self::FailedCreate, Self::Orphan, Self::NewIdentity];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl fmt::Display for DestroyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Store ===

impl Store {
    /// Records that a workspace is `destroying`, and why; the reason of a destruction that is only taken up again
    /// stays. `None`: it is destroyed already, or its time is not up at `if_expired_at`, and nothing was changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_begin_destroy(
        &self,
        id: WorkspaceId,
        reason: DestroyReason,
        if_expired_at: Option<DateTime<Utc>>,
    ) -> Result<Option<WorkspaceRow>, StoreError> {
        let first = Func::coalesce([Expr::col(Column::DestroyReason), Expr::value(reason.as_str())]);
        let mut update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::State.ne(StateWord::Destroyed.as_str()))
            .col_expr(Column::State, Expr::value(StateWord::Destroying.as_str()))
            .col_expr(Column::Starting, Expr::value(false))
            .col_expr(Column::Idled, Expr::value(false))
            .col_expr(Column::ErrorReason, Expr::value(None::<String>))
            .col_expr(Column::ErrorMessage, Expr::value(None::<String>))
            .col_expr(Column::DestroyReason, first.into());
        if let Some(at) = if_expired_at {
            // One that is being destroyed already goes on, whatever its time.
            let destroying = Column::State.eq(StateWord::Destroying.as_str());
            update = update.filter(Column::ExpiresAt.lte(at).or(destroying));
        }
        let changed = update.exec_with_returning(self.writer.connection()).await.doing("record a destruction")?;
        changed.into_iter().next().map(WorkspaceRow::try_from).transpose()
    }
}
