//! How much a project may have. Quotas are looked at in the statement that takes a place, as the limit of the whole
//! installation is, so that no two creates can see the same last place.

use chrono::{DateTime, Utc};
use emergent_provider::{ContainerKind, ResourceLimits};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    sea_query::{Alias, Asterisk, Expr, ExprTrait as _, Func, Query, SelectStatement},
};

use crate::{
    ProjectId, StateWord, Store, StoreError,
    admission::is_counted,
    entity::{
        project::{self, Column as ProjectColumn},
        workspace::{self, Column},
    },
    error::Doing as _,
    words::from_integer,
};

/// Sums of halves and tenths of cores are not exact; what they differ by is nobody's core.
const CPU_TOLERANCE: f64 = 1e-6;

/// A project.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Names it.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// When it was first named.
    pub created_at: DateTime<Utc>,
    /// How much it may have.
    pub quota: Quota,
}

/// How much a project may have; `None` is as much as there is. Only agent workspaces count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Workspaces that are creating, ready or paused, or being started.
    pub max_active: Option<u32>,
    /// Workspaces that are not destroyed.
    pub max_total: Option<u32>,
    /// CPU cores of the active ones together.
    pub max_cpu: Option<f64>,
    /// Memory of the active ones together.
    pub max_memory_bytes: Option<u64>,
}

/// How much a project has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QuotaUse {
    /// Active workspaces.
    pub active: u64,
    /// Workspaces that are not destroyed.
    pub total: u64,
    /// CPU cores of the active ones together.
    pub cpu: f64,
    /// Memory of the active ones together.
    pub memory_bytes: u64,
}

/// The quota that has no room for a workspace.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum QuotaReached {
    /// `max_active`.
    #[error("max_active allows {0} workspaces in use at once")]
    Active(u32),
    /// `max_total`.
    #[error("max_total allows {0} workspaces, stopped ones too")]
    Total(u32),
    /// `max_cpu`.
    #[error("max_cpu allows {most} cores for the workspaces in use together, and {used} are taken")]
    Cpu {
        /// What it allows.
        most: f64,
        /// What is taken.
        used: f64,
    },
    /// `max_memory`.
    #[error("max_memory allows {most} bytes for the workspaces in use together, and {used} are taken")]
    Memory {
        /// What it allows.
        most: u64,
        /// What is taken.
        used: u64,
    },
}

// === impl Quota ===

impl Quota {
    /// Which quota has no room for one more active workspace. `is_new`: it does not count yet at all.
    pub fn reached(&self, used: &QuotaUse, wanted: &ResourceLimits, is_new: bool) -> Option<QuotaReached> {
        let Self { max_active, max_total, max_cpu, max_memory_bytes } = *self;
        let total = max_total.filter(|most| is_new && used.total >= u64::from(*most)).map(QuotaReached::Total);
        let active = max_active.filter(|most| used.active >= u64::from(*most)).map(QuotaReached::Active);
        let cpu = max_cpu.filter(|most| used.cpu + wanted.cpu > most + CPU_TOLERANCE);
        let cpu = cpu.map(|most| QuotaReached::Cpu { most, used: used.cpu });
        let memory = max_memory_bytes.filter(|most| used.memory_bytes.saturating_add(wanted.memory_bytes) > *most);
        let memory = memory.map(|most| QuotaReached::Memory { most, used: used.memory_bytes });
        total.or(active).or(cpu).or(memory)
    }
}

/// Whether a project's quotas have room for one more active workspace: [`Quota::reached`] as a condition.
pub(crate) fn has_room(project: ProjectId, wanted: &ResourceLimits, is_new: bool) -> Expr {
    let memory = i64::try_from(wanted.memory_bytes).unwrap_or(i64::MAX);
    let room = |quota: ProjectColumn, taken: Expr| Expr::col(quota).is_null().or(Expr::col(quota).gte(taken));
    let mut quota = Query::select();
    quota
        .expr(Expr::value(1))
        .from(project::Entity)
        .and_where(ProjectColumn::Id.eq(project.as_uuid()))
        .and_where(room(ProjectColumn::QuotaMaxActive, subquery(active_of(project, count())).add(1)))
        .and_where(room(
            ProjectColumn::QuotaMaxCpu,
            subquery(active_of(project, cpu())).add(wanted.cpu - CPU_TOLERANCE),
        ))
        .and_where(room(ProjectColumn::QuotaMaxMemoryBytes, subquery(active_of(project, memory_sum())).add(memory)));
    if is_new {
        quota.and_where(room(ProjectColumn::QuotaMaxTotal, subquery(all_of(project)).add(1)));
    }
    Expr::exists(quota)
}

/// How much a project has, through `connection`.
pub(crate) async fn used_by(connection: &impl ConnectionTrait, project: ProjectId) -> Result<QuotaUse, StoreError> {
    let mut select = Query::select();
    select
        .expr_as(subquery(active_of(project, count())), "active")
        .expr_as(subquery(all_of(project)), "total")
        .expr_as(subquery(active_of(project, cpu())), "cpu")
        .expr_as(subquery(active_of(project, memory_sum())), "memory");
    let row = connection.query_one(&select).await.doing("count a project's workspaces")?;
    let Some(row) = row else { return Ok(QuotaUse::default()) };
    let (active, total, cpu, memory): (i64, i64, f64, i64) = (
        row.try_get("", "active").doing("count a project's workspaces")?,
        row.try_get("", "total").doing("count a project's workspaces")?,
        row.try_get("", "cpu").doing("count a project's workspaces")?,
        row.try_get("", "memory").doing("count a project's workspaces")?,
    );
    Ok(QuotaUse {
        active: from_integer("active", active)?,
        total: from_integer("total", total)?,
        cpu,
        memory_bytes: from_integer("memory", memory)?,
    })
}

/// A project's quotas, through `connection`.
pub(crate) async fn quota_of(connection: &impl ConnectionTrait, project: ProjectId) -> Result<Quota, StoreError> {
    let row = project::Entity::find_by_id(project.as_uuid()).one(connection).await.doing("read a quota")?;
    row.map_or(Ok(Quota::default()), |row| quota(&row))
}

fn quota(row: &project::Model) -> Result<Quota, StoreError> {
    let whole = |number: Option<i32>| number.map(|number| from_integer("quota", number.into())).transpose();
    Ok(Quota {
        max_active: whole(row.quota_max_active)?,
        max_total: whole(row.quota_max_total)?,
        max_cpu: row.quota_max_cpu,
        max_memory_bytes: row.quota_max_memory_bytes.map(|bytes| from_integer("quota", bytes)).transpose()?,
    })
}

fn count() -> Expr {
    Func::count(Expr::col(Asterisk)).into()
}

fn cpu() -> Expr {
    Func::coalesce([Func::sum(Expr::col(Column::Cpu)).into(), Expr::value(0.0)]).into()
}

/// PostgreSQL adds integers up to a type of its own.
fn memory_sum() -> Expr {
    let sum = Expr::from(Func::sum(Expr::col(Column::MemoryBytes))).cast_as(Alias::new("bigint"));
    Func::coalesce([sum, Expr::value(0_i64)]).into()
}

fn of_project(project: ProjectId, what: Expr) -> SelectStatement {
    let mut select = Query::select();
    select
        .expr(what)
        .from(workspace::Entity)
        .and_where(Column::ProjectId.eq(project.as_uuid()))
        .and_where(Column::Kind.eq(ContainerKind::AgentWorkspace.as_str()));
    select
}

fn active_of(project: ProjectId, what: Expr) -> SelectStatement {
    let mut select = of_project(project, what);
    select.and_where(is_counted());
    select
}

fn all_of(project: ProjectId) -> SelectStatement {
    let mut select = of_project(project, count());
    select.and_where(Column::State.ne(StateWord::Destroyed.as_str()));
    select
}

fn subquery(select: SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(select.into()))
}

// === impl Store ===

impl Store {
    /// All projects, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn projects_list(&self) -> Result<Vec<Project>, StoreError> {
        let by_name = project::Entity::find().order_by_asc(ProjectColumn::Name);
        let rows = by_name.all(self.reader.connection()).await.doing("list projects")?;
        let project = |row: project::Model| {
            Ok(Project { id: row.id.into(), quota: quota(&row)?, name: row.name, created_at: row.created_at })
        };
        rows.into_iter().map(project).collect()
    }

    /// Sets a project's quotas, all of them. What it has already stays. `None`: there is no such project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn projects_set_quota(&self, id: ProjectId, quota: Quota) -> Result<Option<Quota>, StoreError> {
        let whole = |number: Option<u32>| number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
        let memory = quota.max_memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let update = project::Entity::update_many()
            .filter(ProjectColumn::Id.eq(id.as_uuid()))
            .col_expr(ProjectColumn::QuotaMaxActive, Expr::value(whole(quota.max_active)))
            .col_expr(ProjectColumn::QuotaMaxTotal, Expr::value(whole(quota.max_total)))
            .col_expr(ProjectColumn::QuotaMaxCpu, Expr::value(quota.max_cpu))
            .col_expr(ProjectColumn::QuotaMaxMemoryBytes, Expr::value(memory));
        let updated = update.exec(self.writer.connection()).await.doing("set a quota")?;
        Ok((updated.rows_affected > 0).then_some(quota))
    }

    /// How much a project may have, and has.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn projects_quota(&self, id: ProjectId) -> Result<(Quota, QuotaUse), StoreError> {
        let reader = self.reader.connection();
        Ok((quota_of(reader, id).await?, used_by(reader, id).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_names_what_has_no_room() {
        let wanted = ResourceLimits { cpu: 0.1, memory_bytes: 10, disk_bytes: 0, pids: 0 };
        let used = QuotaUse { active: 2, total: 3, cpu: 0.2, memory_bytes: 20 };
        let none = Quota::default();
        assert_eq!(none.reached(&used, &wanted, true), None);
        let exact = Quota { max_active: Some(3), max_total: Some(4), max_cpu: Some(0.3), max_memory_bytes: Some(30) };
        assert_eq!(exact.reached(&used, &wanted, true), None, "0.1 + 0.2 cores fit into 0.3");
        let refused = |quota: Quota| quota.reached(&used, &wanted, true);
        assert_eq!(refused(Quota { max_active: Some(2), ..none }), Some(QuotaReached::Active(2)));
        assert_eq!(refused(Quota { max_total: Some(3), ..none }), Some(QuotaReached::Total(3)));
        let memory = QuotaReached::Memory { most: 29, used: 20 };
        assert_eq!(refused(Quota { max_memory_bytes: Some(29), ..none }), Some(memory));
        let stopped_one = Quota { max_total: Some(3), ..none }.reached(&used, &wanted, false);
        assert_eq!(stopped_one, None, "one that is started again counts already");
    }
}
