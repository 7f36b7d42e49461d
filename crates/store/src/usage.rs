//! The resources that workspaces used: samples, and their totals.

use chrono::{DateTime, Utc};
use emergent_types::WorkspaceId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};

use crate::{
    ProjectId, Store, StoreError,
    entity::usage::{ActiveModel, Column, Entity, Model},
    error::Doing as _,
    model::words::from_integer,
};

/// The resources that a workspace used, as measured at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsageSample {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The project that the workspace belongs to.
    pub project: ProjectId,
    /// The time at which the figures were asked for.
    pub at: DateTime<Utc>,
    /// The time up to `at` that this sample stands for.
    pub seconds: f64,
    /// CPU time used in these seconds.
    pub cpu_seconds: f64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Bytes in `/workspace`, where that is known.
    pub disk_bytes: Option<u64>,
    /// Processes alive.
    pub processes: u64,
}

/// The totals of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UsageTotals {
    /// The number of samples.
    pub samples: u64,
    /// The time that the samples stand for.
    pub seconds: f64,
    /// CPU time.
    pub cpu_seconds: f64,
    /// Bytes of memory, times the seconds that they were in use.
    pub memory_byte_seconds: f64,
}

// === impl Store ===

impl Store {
    /// Records samples, in one statement.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; then none of them was recorded.
    pub async fn usage_append(&self, samples: &[UsageSample]) -> Result<(), StoreError> {
        if samples.is_empty() {
            return Ok(());
        }
        let again = OnConflict::columns([Column::WorkspaceId, Column::At]).do_nothing().to_owned();
        let insert = Entity::insert_many(samples.iter().map(ActiveModel::from)).on_conflict(again);
        insert.exec_without_returning(self.writer.connection()).await.doing("record what was used")?;
        Ok(())
    }

    /// The newest samples of a workspace in a span of time, newest first, `most` at most.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn usage_list(
        &self,
        workspace: WorkspaceId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        most: u64,
    ) -> Result<Vec<UsageSample>, StoreError> {
        let newest_first = Entity::find().filter(within(workspace, since, until)).order_by_desc(Column::At).limit(most);
        let rows = newest_first.all(self.reader.connection()).await.doing("list what was used")?;
        rows.into_iter().map(UsageSample::try_from).collect()
    }

    /// Adds up the samples of a workspace in a span of time.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn usage_totals(
        &self,
        workspace: WorkspaceId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<UsageTotals, StoreError> {
        let byte_seconds = Expr::col(Column::MemoryBytes).mul(Expr::col(Column::Seconds));
        let sums = Entity::find()
            .select_only()
            .column_as(Column::At.count(), "samples")
            .column_as(Column::Seconds.sum(), "seconds")
            .column_as(Column::CpuSeconds.sum(), "cpu_seconds")
            .column_as(byte_seconds.sum(), "memory_byte_seconds")
            .filter(within(workspace, since, until))
            .into_tuple::<(i64, Option<f64>, Option<f64>, Option<f64>)>();
        let sums = sums.one(self.reader.connection()).await.doing("add up what was used")?;
        let Some((samples, seconds, cpu_seconds, memory)) = sums else { return Ok(UsageTotals::default()) };
        Ok(UsageTotals {
            samples: from_integer("samples", samples)?,
            seconds: seconds.unwrap_or(0.0),
            cpu_seconds: cpu_seconds.unwrap_or(0.0),
            memory_byte_seconds: memory.unwrap_or(0.0),
        })
    }

    /// Deletes samples older than `before`, those of `most` moments at most; returns the number of samples.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn usage_purge(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        let old = Entity::find().select_only().column(Column::At).filter(Column::At.lt(before));
        let oldest = old.order_by_asc(Column::At).limit(most).into_query();
        let delete = Entity::delete_many().filter(Column::At.in_subquery(oldest));
        let deleted = delete.exec(self.writer.connection()).await.doing("delete what is old")?;
        Ok(deleted.rows_affected)
    }
}

fn within(workspace: WorkspaceId, since: DateTime<Utc>, until: DateTime<Utc>) -> Condition {
    Condition::all()
        .add(Column::WorkspaceId.eq(workspace.as_uuid()))
        .add(Column::At.gte(since))
        .add(Column::At.lt(until))
}

// === impl UsageSample ===

impl From<&UsageSample> for ActiveModel {
    fn from(sample: &UsageSample) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            workspace_id: Set(sample.workspace.as_uuid()),
            at: Set(sample.at),
            project_id: Set(sample.project.as_uuid()),
            seconds: Set(sample.seconds),
            cpu_seconds: Set(sample.cpu_seconds),
            memory_bytes: Set(signed(sample.memory_bytes)),
            disk_bytes: Set(sample.disk_bytes.map(signed)),
            processes: Set(signed(sample.processes)),
        }
    }
}

impl TryFrom<Model> for UsageSample {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            workspace: row.workspace_id.into(),
            project: row.project_id.into(),
            at: row.at,
            seconds: row.seconds,
            cpu_seconds: row.cpu_seconds,
            memory_bytes: from_integer("memory_bytes", row.memory_bytes)?,
            disk_bytes: row.disk_bytes.map(|bytes| from_integer("disk_bytes", bytes)).transpose()?,
            processes: from_integer("processes", row.processes)?,
        })
    }
}
