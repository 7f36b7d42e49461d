//! The record of the actions in workspaces and on them: written in batches, read newest first, deleted when it is old.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use emergent_types::WorkspaceId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, EntityTrait as _, JsonValue, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
    sea_query::{ExprTrait as _, OnConflict},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    AuditId, Cursor, Page, PageRequest, ProjectId, Store, StoreError, TokenId,
    entity::audit::{ActiveModel, Column, Entity, Model},
    error::Doing as _,
    model::words::{Word, from_integer, from_json, from_word, storable, storable_json},
};

/// An action.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// The action's id; later actions have greater ones.
    pub id: AuditId,
    /// The project that the action belongs to.
    pub project: ProjectId,
    /// The workspace in which or on which it was done; `None` where none was made or named.
    pub workspace: Option<WorkspaceId>,
    /// The time at which the action began.
    pub at: DateTime<Utc>,
    /// The author of the action.
    pub actor: Actor,
    /// The session of the action, where the caller has named it.
    pub session: Option<String>,
    /// The action's kind: a call or a step of a workspace's life.
    pub kind: AuditKind,
    /// The action's name, such as `bash` or `stop`.
    pub action: String,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The problem that the action ended with.
    pub problem: Option<String>,
    /// The action's duration, in milliseconds.
    pub duration_ms: u64,
    /// The arguments of the action, in few words; never contents, output or values of an environment.
    pub arguments: Map<String, Value>,
    /// Bytes that the caller sent.
    pub bytes_in: u64,
    /// Bytes that the caller was sent.
    pub bytes_out: u64,
    /// The request that asked for the action.
    pub request_id: Option<String>,
}

/// The author of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The server, by itself.
    Server,
    /// The holder of this token.
    Token(TokenId),
}

/// The kind of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditKind {
    /// A call that reaches into a workspace.
    Tool,
    /// A step of a workspace's life.
    Lifecycle,
}

/// The outcome of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The action was done.
    Ok,
    /// The action was not done, for a reason that lies in the request or in the workspace.
    Refused,
    /// The action went wrong.
    Failed,
    /// The action's time was up.
    TimedOut,
    /// The caller went away before the end. The action may go on.
    Abandoned,
}

/// A word that names no kind or outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {1}")]
pub struct UnknownAuditWord(String, String);

/// The rows to list. Every part narrows the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this workspace.
    pub workspace: Option<WorkspaceId>,
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// Of this action.
    pub action: Option<String>,
    /// With this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Under this session.
    pub session: Option<String>,
    /// Begun at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Begun before this time.
    pub until: Option<DateTime<Utc>>,
}

impl Word for AuditKind {
    const ALL: &'static [Self] = &[Self::Tool, Self::Lifecycle];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for AuditOutcome {
    const ALL: &'static [Self] = &[Self::Ok, Self::Refused, Self::Failed, Self::TimedOut, Self::Abandoned];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

macro_rules! readable {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownAuditWord;

            fn from_str(text: &str) -> Result<Self, UnknownAuditWord> {
                let words = || Self::ALL.iter().map(|value| value.word()).collect::<Vec<_>>().join(", ");
                let known = Self::ALL.iter().copied().find(|value| value.word() == text);
                known.ok_or_else(|| UnknownAuditWord(text.to_owned(), words()))
            }
        }
    };
}

readable!(AuditKind);
readable!(AuditOutcome);

// === impl AuditKind ===

impl AuditKind {
    /// The kind's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Lifecycle => "lifecycle",
        }
    }
}

// === impl AuditOutcome ===

impl AuditOutcome {
    /// The outcome's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
        }
    }
}

// === impl Store ===

impl Store {
    /// Records rows, in one statement. A row that is there already is left alone, so that a batch can be tried again.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; then none of them was recorded.
    pub async fn audit_append(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let again = OnConflict::column(Column::Id).do_nothing().to_owned();
        let insert = Entity::insert_many(rows.iter().map(ActiveModel::from)).on_conflict(again);
        insert.exec_without_returning(self.writer.connection()).await.doing("record what was done")?;
        Ok(())
    }

    /// Returns a page of the actions in a project, newest first. `page.limit` is taken as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_list(
        &self,
        project: ProjectId,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRow>, StoreError> {
        let mut select = Entity::find().filter(Column::ProjectId.eq(project.as_uuid())).filter(filter.condition());
        if let Some(Cursor { created_at, id }) = page.cursor {
            let same_instant = Column::At.eq(created_at).and(Column::Id.lt(id));
            select = select.filter(Column::At.lt(created_at).or(same_instant));
        }
        let one_more = u64::from(page.limit) + 1;
        let newest_first = select.order_by_desc(Column::At).order_by_desc(Column::Id).limit(one_more);
        let rows = newest_first.all(self.reader.connection()).await.doing("list what was done")?;
        let more = rows.len() as u64 == one_more;
        let mut items = rows.into_iter().map(AuditRow::try_from).collect::<Result<Vec<_>, _>>()?;
        if more {
            items.pop();
        }
        let last = items.last().filter(|_| more);
        let next = last.map(|row| Cursor { created_at: row.at, id: row.id.as_uuid() });
        Ok(Page { items, next })
    }

    /// Deletes at most `most` rows that are older than `before`; returns their number.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_purge(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        let old = Entity::find().select_only().column(Column::Id).filter(Column::At.lt(before)).limit(most);
        let delete = Entity::delete_many().filter(Column::Id.in_subquery(old.into_query()));
        let deleted = delete.exec(self.writer.connection()).await.doing("delete what is old")?;
        Ok(deleted.rows_affected)
    }

    /// Returns the projects that have more than `beyond` rows, with their numbers of rows.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_counts(&self, beyond: u64) -> Result<Vec<(ProjectId, u64)>, StoreError> {
        let select = Entity::find().select_only().column(Column::ProjectId).expr(Column::Id.count());
        let many = select.group_by(Column::ProjectId).having(Column::Id.count().gt(beyond));
        let counts =
            many.into_tuple::<(Uuid, i64)>().all(self.reader.connection()).await.doing("count what was done")?;
        counts.into_iter().map(|(project, rows)| Ok((project.into(), from_integer("count", rows)?))).collect()
    }

    /// Deletes at most `most` of a project's rows, the oldest first; returns their number.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_purge_oldest(&self, project: ProjectId, most: u64) -> Result<u64, StoreError> {
        let of_project =
            Entity::find().select_only().column(Column::Id).filter(Column::ProjectId.eq(project.as_uuid()));
        let oldest = of_project.order_by_asc(Column::At).order_by_asc(Column::Id).limit(most);
        let delete = Entity::delete_many().filter(Column::Id.in_subquery(oldest.into_query()));
        let deleted = delete.exec(self.writer.connection()).await.doing("delete what is too much")?;
        Ok(deleted.rows_affected)
    }
}

// === impl AuditFilter ===

impl AuditFilter {
    fn condition(&self) -> Condition {
        Condition::all()
            .add_option(self.workspace.map(|id| Column::WorkspaceId.eq(id.as_uuid())))
            .add_option(self.kind.map(|kind| Column::Kind.eq(kind.as_str())))
            .add_option(self.action.as_deref().map(|action| Column::Action.eq(action)))
            .add_option(self.outcome.map(|outcome| Column::Outcome.eq(outcome.as_str())))
            .add_option(self.session.as_deref().map(|session| Column::Session.eq(session)))
            .add_option(self.since.map(|since| Column::At.gte(since)))
            .add_option(self.until.map(|until| Column::At.lt(until)))
    }
}

// === impl AuditRow ===

impl From<&AuditRow> for ActiveModel {
    fn from(row: &AuditRow) -> Self {
        // Nothing takes 292 million years, or has 8 EiB: the largest number says as much.
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            id: Set(row.id.as_uuid()),
            project_id: Set(row.project.as_uuid()),
            workspace_id: Set(row.workspace.map(WorkspaceId::as_uuid)),
            at: Set(row.at),
            actor: Set(match row.actor {
                Actor::Server => None,
                Actor::Token(token) => Some(token.as_uuid()),
            }),
            session: Set(row.session.as_deref().map(storable)),
            kind: Set(row.kind.as_str().to_owned()),
            action: Set(row.action.clone()),
            outcome: Set(row.outcome.as_str().to_owned()),
            problem: Set(row.problem.clone()),
            duration_ms: Set(signed(row.duration_ms)),
            arguments: Set(storable_json(JsonValue::Object(row.arguments.clone()))),
            bytes_in: Set(signed(row.bytes_in)),
            bytes_out: Set(signed(row.bytes_out)),
            request_id: Set(row.request_id.clone()),
        }
    }
}

impl TryFrom<Model> for AuditRow {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            workspace: row.workspace_id.map(Into::into),
            at: row.at,
            actor: row.actor.map_or(Actor::Server, |token| Actor::Token(token.into())),
            session: row.session,
            kind: from_word("kind", &row.kind)?,
            action: row.action,
            outcome: from_word("outcome", &row.outcome)?,
            problem: row.problem,
            duration_ms: from_integer("duration_ms", row.duration_ms)?,
            arguments: from_json("arguments", row.arguments)?,
            bytes_in: from_integer("bytes_in", row.bytes_in)?,
            bytes_out: from_integer("bytes_out", row.bytes_out)?,
            request_id: row.request_id,
        })
    }
}
