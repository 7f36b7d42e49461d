//! Leftovers: objects in an engine that no row accounts for, although they had been handed over to somebody. The rows
//! of a restored backup, for example, do not know later workspaces. A leftover is kept for a while, so that an
//! administrator can adopt it.

use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_provider::ProviderKind;
use emergent_types::ServerId;
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, TryInsertResult,
};
use uuid::Uuid;

use crate::{
    SnapshotRow, StateKind, Store, StoreError, WorkspaceRow,
    entity::{
        leftover::{ActiveModel, Column, Entity, Model},
        snapshot, workspace,
    },
    error::Doing as _,
    model::{
        row, snapshot_row,
        words::{Word, from_word, parse, signed},
    },
};

/// The kind of a leftover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftoverKind {
    /// An agent's workspace.
    Workspace,
    /// A hosted MCP server's sandbox.
    McpServer,
    /// A snapshot.
    Snapshot,
}

/// A leftover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftoverRow {
    /// The id of the workspace, the hosted server or the snapshot, from its label.
    pub id: Uuid,
    /// The leftover's kind.
    pub kind: LeftoverKind,
    /// The provider that has the leftover.
    pub provider: ProviderKind,
    /// The server that made the leftover, from its label.
    pub maker: ServerId,
    /// The server that found the leftover and drives its engine.
    pub server: ServerId,
    /// The time at which the leftover was made.
    pub made_at: DateTime<Utc>,
    /// The time at which the leftover was found: the time for which it is kept begins.
    pub found_at: DateTime<Utc>,
}

// === impl LeftoverKind ===

impl LeftoverKind {
    /// The kind's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::McpServer => "mcp_server",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Word for LeftoverKind {
    const ALL: &'static [Self] = &[Self::Workspace, Self::McpServer, Self::Snapshot];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

// === impl Store ===

impl Store {
    /// Records a leftover. False: it was recorded before, and nothing was changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leftovers_note(&self, new: &LeftoverRow) -> Result<bool, StoreError> {
        let values = ActiveModel {
            id: Set(new.id),
            kind: Set(new.kind.as_str().to_owned()),
            provider: Set(new.provider.as_str().to_owned()),
            maker_id: Set(new.maker.as_uuid()),
            server_id: Set(new.server.as_uuid()),
            made_at: Set(new.made_at.trunc_subsecs(6)),
            found_at: Set(new.found_at.trunc_subsecs(6)),
        };
        let insert = Entity::insert(values).on_conflict_do_nothing();
        let inserted = insert.exec_without_returning(self.writer.connection()).await.doing("record a leftover")?;
        Ok(matches!(inserted, TryInsertResult::Inserted(1)))
    }

    /// Every leftover, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leftovers_list(&self) -> Result<Vec<LeftoverRow>, StoreError> {
        let newest_first = Entity::find().order_by_desc(Column::FoundAt).order_by_asc(Column::Id);
        let rows = newest_first.all(self.reader.connection()).await.doing("list leftovers")?;
        rows.into_iter().map(LeftoverRow::try_from).collect()
    }

    /// One leftover.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leftovers_find(&self, id: Uuid) -> Result<Option<LeftoverRow>, StoreError> {
        let row = Entity::find_by_id(id).one(self.reader.connection()).await.doing("read a leftover")?;
        row.map(LeftoverRow::try_from).transpose()
    }

    /// Forgets a leftover that the caller is about to remove. False: there is no such leftover (any more).
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leftovers_take(&self, id: Uuid) -> Result<bool, StoreError> {
        take(self.writer.connection(), id, "forget a leftover").await
    }

    /// Forgets leftovers that are gone from the engine. Ids that name none change nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn leftovers_forget(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::Id.is_in(ids.iter().copied()));
        delete.exec(self.writer.connection()).await.doing("forget leftovers")?;
        Ok(())
    }

    /// Makes a leftover a workspace, which is stopped. False: there is no such leftover (any more), and nothing was
    /// changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was changed then.
    pub async fn leftovers_adopt_workspace(&self, adopted: &WorkspaceRow) -> Result<bool, StoreError> {
        const ACTION: &str = "adopt a workspace";
        let transaction = self.writer.begin(ACTION).await?;
        if !take(&transaction, adopted.id.as_uuid(), ACTION).await? {
            return Ok(false);
        }
        let values = workspace::ActiveModel {
            state: Set(StateKind::Stopped.as_str().to_owned()),
            ready_at: Set(adopted.ready_at),
            ..row::new_values(adopted)
        };
        values.insert(&transaction).await.doing(ACTION)?;
        transaction.commit().await.doing(ACTION)?;
        Ok(true)
    }

    /// Makes a leftover a snapshot, which is ready. False: there is no such leftover (any more), and nothing was
    /// changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was changed then.
    pub async fn leftovers_adopt_snapshot(&self, adopted: &SnapshotRow) -> Result<bool, StoreError> {
        const ACTION: &str = "adopt a snapshot";
        let transaction = self.writer.begin(ACTION).await?;
        if !take(&transaction, adopted.new.id.as_uuid(), ACTION).await? {
            return Ok(false);
        }
        let values = snapshot::ActiveModel {
            state: Set(adopted.state.word().as_str().to_owned()),
            root_bytes: Set(adopted.taken.map(|taken| signed(taken.root_bytes))),
            workspace_bytes: Set(adopted.taken.map(|taken| signed(taken.workspace_bytes))),
            ready_at: Set(adopted.ready_at),
            ..snapshot_row::new_values(adopted)
        };
        values.insert(&transaction).await.doing(ACTION)?;
        transaction.commit().await.doing(ACTION)?;
        Ok(true)
    }
}

async fn take(connection: &impl ConnectionTrait, id: Uuid, action: &'static str) -> Result<bool, StoreError> {
    Ok(Entity::delete_by_id(id).exec(connection).await.doing(action)?.rows_affected == 1)
}

impl TryFrom<Model> for LeftoverRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            kind: from_word("kind", &row.kind)?,
            provider: parse("provider", &row.provider)?,
            maker: row.maker_id.into(),
            server: row.server_id.into(),
            made_at: row.made_at,
            found_at: row.found_at,
        })
    }
}
