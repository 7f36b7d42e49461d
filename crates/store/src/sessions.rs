//! The holders of a workspace, now and before.
//!
//! At most one session of a workspace is open. A unique index over the open ones sees to it, so that of all who attach
//! at the same moment, on however many servers, one does.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use emergent_types::WorkspaceId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};

use crate::{
    Cursor, Page, PageRequest, SessionId, Store, StoreError,
    entity::session::{ActiveModel, Column, Entity, Model},
    error::Doing as _,
    model::words::{Word, from_integer, from_word},
    time::now,
};

/// One attachment of an agent to a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// The session's id.
    pub id: SessionId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The holder of the workspace, in the holder's own words.
    pub holder: String,
    /// The time since which the holder has the workspace.
    pub attached_at: DateTime<Utc>,
    /// The time for which the session lasts without a call; `None`: until it is ended.
    pub lease: Option<Duration>,
    /// The time at which the session ends unless it is renewed.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time and the reason of the session's end; `None`: it is open.
    pub ended: Option<(DateTime<Utc>, SessionEnd)>,
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The session's id.
    pub id: SessionId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The holder that the workspace is to have.
    pub holder: String,
    /// The time for which the session lasts without a call; `None`: until it is ended.
    pub lease: Option<Duration>,
}

/// The reason for which a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionEnd {
    /// The holder let the workspace go.
    Detached,
    /// Another holder took the workspace over.
    TakenOver,
    /// The holder was not heard of for as long as the session's lease.
    Expired,
    /// The workspace was destroyed.
    Destroyed,
    /// The workspace could not be made ready for its holder.
    Unusable,
}

/// Whether a session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// The session is open since now.
    Attached(SessionRow),
    /// The same holder had opened the session already; its lease begins anew.
    Renewed(SessionRow),
    /// This other session is open.
    Held(SessionRow),
    /// Another session has, or had, this id.
    IdTaken,
}

// === impl SessionEnd ===

impl SessionEnd {
    /// The word for it in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::TakenOver => "taken_over",
            Self::Expired => "expired",
            Self::Destroyed => "destroyed",
            Self::Unusable => "unusable",
        }
    }
}

impl Word for SessionEnd {
    const ALL: &'static [Self] = &[Self::Detached, Self::TakenOver, Self::Expired, Self::Destroyed, Self::Unusable];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

// === impl Store ===

impl Store {
    /// Opens a session if none is open, or in place of the one that is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was changed then.
    pub async fn sessions_attach(&self, new: NewSession, take_over: bool) -> Result<Attachment, StoreError> {
        let transaction = self.writer.begin("begin attaching").await?;
        let at = now();
        end_expired(&transaction, new.workspace, at).await?;
        if let Some(known) = Entity::find_by_id(new.id.as_uuid()).one(&transaction).await.doing("read a session")? {
            return again(transaction, known, &new, at).await;
        }
        if take_over {
            end(&transaction, new.workspace, None, SessionEnd::TakenOver, at).await?;
        }
        let row = ActiveModel {
            id: Set(new.id.as_uuid()),
            workspace_id: Set(new.workspace.as_uuid()),
            holder: Set(new.holder),
            attached_at: Set(at),
            lease_ms: Set(new.lease.map(milliseconds)),
            expires_at: Set(new.lease.and_then(|lease| after(at, lease))),
            ended_at: Set(None),
            end_reason: Set(None),
        };
        let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned());
        // Without a row when another session is open.
        insert.exec_without_returning(&transaction).await.doing("record a session")?;
        let open = Entity::find().filter(is_open(new.workspace)).one(&transaction).await.doing("read a session")?;
        transaction.commit().await.doing("attach")?;
        match open.map(SessionRow::try_from).transpose()? {
            Some(open) if open.id == new.id => Ok(Attachment::Attached(open)),
            Some(open) => Ok(Attachment::Held(open)),
            None => Ok(Attachment::IdTaken),
        }
    }

    /// Ends a workspace's open session, or only this one. `None`: there was none to end.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sessions_end(
        &self,
        workspace: WorkspaceId,
        only: Option<SessionId>,
        reason: SessionEnd,
    ) -> Result<Option<SessionRow>, StoreError> {
        let transaction = self.writer.begin("begin ending a session").await?;
        let at = now();
        end_expired(&transaction, workspace, at).await?;
        let ended = end(&transaction, workspace, only, reason, at).await?;
        transaction.commit().await.doing("end a session")?;
        Ok(ended)
    }

    /// Puts off the end of an open session by its whole lease.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sessions_renew(&self, id: SessionId, until: DateTime<Utc>) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::ExpiresAt, Expr::value(until))
            .exec(self.writer.connection());
        update.await.doing("renew a session").map(drop)
    }

    /// The open sessions of some workspaces. One whose lease is over is not open, whether or not that is recorded yet.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sessions_open(&self, of: &[WorkspaceId]) -> Result<Vec<SessionRow>, StoreError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let lasting = Column::ExpiresAt.is_null().or(Column::ExpiresAt.gt(now()));
        let open = Entity::find()
            .filter(Column::WorkspaceId.is_in(of.iter().map(|id| id.as_uuid())))
            .filter(Column::EndedAt.is_null())
            .filter(lasting);
        let rows = open.all(self.reader.connection()).await.doing("read open sessions")?;
        rows.into_iter().map(SessionRow::try_from).collect()
    }

    /// A session of a workspace, open or ended.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sessions_get(&self, workspace: WorkspaceId, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        let by_id = Entity::find_by_id(id.as_uuid()).filter(Column::WorkspaceId.eq(workspace.as_uuid()));
        let row = by_id.one(self.reader.connection()).await.doing("read a session")?;
        row.map(SessionRow::try_from).transpose()
    }

    /// A page of a workspace's sessions, newest first. `page.limit` is taken as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sessions_list(
        &self,
        workspace: WorkspaceId,
        page: PageRequest,
    ) -> Result<Page<SessionRow>, StoreError> {
        let mut select = Entity::find().filter(Column::WorkspaceId.eq(workspace.as_uuid()));
        if let Some(Cursor { created_at, id }) = page.cursor {
            let same_instant = Column::AttachedAt.eq(created_at).and(Column::Id.lt(id));
            select = select.filter(Column::AttachedAt.lt(created_at).or(same_instant));
        }
        let one_more = u64::from(page.limit) + 1;
        let newest_first = select.order_by_desc(Column::AttachedAt).order_by_desc(Column::Id).limit(one_more);
        let rows = newest_first.all(self.reader.connection()).await.doing("list sessions")?;
        let rows = rows.into_iter().map(SessionRow::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, page.limit, |row| Cursor { created_at: row.attached_at, id: row.id.as_uuid() }))
    }
}

/// Renews a session whose id is known, if it is open and has the workspace and the holder of `new`; else the id is
/// taken.
async fn again(
    transaction: DatabaseTransaction,
    known: Model,
    new: &NewSession,
    at: DateTime<Utc>,
) -> Result<Attachment, StoreError> {
    let mut known = SessionRow::try_from(known)?;
    if known.ended.is_some() || known.workspace != new.workspace || known.holder != new.holder {
        return Ok(Attachment::IdTaken);
    }
    known.lease = new.lease;
    known.expires_at = new.lease.and_then(|lease| after(at, lease));
    let update = Entity::update_many()
        .filter(Column::Id.eq(known.id.as_uuid()))
        .col_expr(Column::LeaseMs, Expr::value(new.lease.map(milliseconds)))
        .col_expr(Column::ExpiresAt, Expr::value(known.expires_at));
    update.exec(&transaction).await.doing("renew a session")?;
    transaction.commit().await.doing("attach")?;
    Ok(Attachment::Renewed(known))
}

async fn end_expired(
    transaction: &DatabaseTransaction,
    workspace: WorkspaceId,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let update = Entity::update_many()
        .filter(is_open(workspace))
        .filter(Column::ExpiresAt.lte(at))
        .col_expr(Column::EndedAt, Expr::col(Column::ExpiresAt))
        .col_expr(Column::EndReason, Expr::value(SessionEnd::Expired.as_str()));
    update.exec(transaction).await.doing("end an expired session").map(drop)
}

async fn end(
    transaction: &DatabaseTransaction,
    workspace: WorkspaceId,
    only: Option<SessionId>,
    reason: SessionEnd,
    at: DateTime<Utc>,
) -> Result<Option<SessionRow>, StoreError> {
    let mut update = Entity::update_many()
        .filter(is_open(workspace))
        .col_expr(Column::EndedAt, Expr::value(at))
        .col_expr(Column::EndReason, Expr::value(reason.as_str()));
    if let Some(only) = only {
        update = update.filter(Column::Id.eq(only.as_uuid()));
    }
    let ended = update.exec_with_returning(transaction).await.doing("end a session")?;
    ended.into_iter().next().map(SessionRow::try_from).transpose()
}

fn is_open(workspace: WorkspaceId) -> Condition {
    Condition::all().add(Column::WorkspaceId.eq(workspace.as_uuid())).add(Column::EndedAt.is_null())
}

fn milliseconds(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}

/// `None`, which is never, for a lease that no calendar holds.
fn after(at: DateTime<Utc>, lease: Duration) -> Option<DateTime<Utc>> {
    at.checked_add_signed(TimeDelta::from_std(lease).ok()?)
}

impl TryFrom<Model> for SessionRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let reason = row.end_reason.map(|word| from_word("end_reason", &word)).transpose()?;
        let lease_ms = row.lease_ms.map(|number| from_integer("lease_ms", number)).transpose()?;
        Ok(Self {
            id: row.id.into(),
            workspace: row.workspace_id.into(),
            holder: row.holder,
            attached_at: row.attached_at,
            lease: lease_ms.map(Duration::from_millis),
            expires_at: row.expires_at,
            ended: row.ended_at.zip(reason),
        })
    }
}
