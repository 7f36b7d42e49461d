//! The quotas of projects. Each is checked in the statement that takes a place, as the limit of the whole installation
//! is, so that no two creates can see the same last place.
//!
//! The figures count promises, not the use at a moment: workspaces and hosted MCP servers count with their
//! limits, a snapshot with its size, and with its workspace's disk limit while it is being taken.

use std::fmt;

use chrono::{DateTime, Utc};
use emergent_provider::ContainerKind;
use emergent_types::ResourceLimits;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    sea_query::{Alias, Asterisk, Expr, ExprTrait as _, Func, IntoColumnRef, Query, SelectStatement},
};

use crate::{
    ProjectId, SnapshotStateKind, StateKind, Store, StoreError,
    entity::{
        mcp_server::{self, Column as McpColumn},
        project::{self, Column as ProjectColumn},
        snapshot::{self, Column as SnapshotColumn},
        workspace::{self, Column},
    },
    error::Doing as _,
    model::words::{from_integer, signed},
};

/// Parts of a core in which processors are counted: sums of halves and tenths of cores are not exact.
const CORE: f64 = 1_000.0;

/// A project.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// The project's id.
    pub id: ProjectId,
    /// The project's name.
    pub name: String,
    /// The time at which the project was first named.
    pub created_at: DateTime<Utc>,
    /// The project's quota.
    pub quota: Quota,
}

/// How much a project may have; `None` is as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Agent workspaces that are creating, ready or paused, or being started.
    pub max_active: Option<u32>,
    /// Agent workspaces that are not destroyed.
    pub max_total: Option<u32>,
    /// CPU cores of active workspaces and hosted MCP servers together.
    pub max_cpu: Option<f64>,
    /// Bytes of memory of active workspaces and hosted MCP servers together.
    pub max_memory_bytes: Option<u64>,
    /// Processes and threads of active workspaces and hosted MCP servers together.
    pub max_pids: Option<u64>,
    /// Bytes of disk of workspaces that are not destroyed, hosted MCP servers and snapshots together.
    pub max_disk_bytes: Option<u64>,
    /// Hosted MCP servers, whatever state they are in.
    pub max_mcp_servers: Option<u32>,
    /// Snapshots, those that forks need for a moment too.
    pub max_snapshots: Option<u32>,
}

/// The amounts that a project has, or would have in addition.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QuotaUse {
    /// Active agent workspaces.
    pub active: u64,
    /// Agent workspaces that are not destroyed.
    pub total: u64,
    /// CPU cores.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Hosted MCP servers.
    pub mcp_servers: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// One figure of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// `max_total`.
    Total,
    /// `max_active`.
    Active,
    /// `max_mcp_servers`.
    McpServers,
    /// `max_snapshots`.
    Snapshots,
    /// `max_cpu`, counted in thousandths of a core.
    Cpu,
    /// `max_memory`, in bytes.
    Memory,
    /// `max_pids`.
    Pids,
    /// `max_disk`, in bytes.
    Disk,
}

/// The quota that has no room, in the unit of its measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the project's quota {} allows {}, {} of it is in use, and {} more is asked for; remove something, or have an \
     administrator raise it with `emergent project quota PROJECT --{}`",
    .measure.as_str(), .measure.show(*.most), .measure.show(*.used), .measure.show(*.wanted), .measure.option()
)]
pub struct QuotaReached {
    /// The figure.
    pub measure: Measure,
    /// The amount that the quota allows.
    pub most: u64,
    /// The amount that is in use.
    pub used: u64,
    /// The amount that was asked for.
    pub wanted: u64,
}

// === impl Quota ===

impl Quota {
    /// Returns the quota that has no room for so much more.
    pub fn reached(&self, used: &QuotaUse, wanted: &QuotaUse) -> Option<QuotaReached> {
        Measure::ALL.into_iter().find_map(|measure| {
            let (most, used, wanted) = (measure.limit(self)?, measure.of(used), measure.of(wanted));
            (wanted > 0 && used.saturating_add(wanted) > most).then_some(QuotaReached { measure, most, used, wanted })
        })
    }
}

// === impl QuotaUse ===

impl QuotaUse {
    /// Returns the use of one more workspace. `is_new`: the workspace does not count yet at all; one that is started
    /// again counts in part already.
    pub fn of_workspace(kind: ContainerKind, limits: &ResourceLimits, is_new: bool) -> Self {
        let one = |counts: bool| u64::from(counts);
        let is_agents = kind == ContainerKind::AgentWorkspace;
        Self {
            active: one(is_agents),
            total: one(is_agents && is_new),
            mcp_servers: one(!is_agents && is_new),
            disk_bytes: if is_new { limits.disk_bytes } else { 0 },
            ..Self::of_limits(limits)
        }
    }

    /// Returns the use of a hosted MCP server with these limits.
    pub fn of_mcp_server(limits: &ResourceLimits) -> Self {
        Self { mcp_servers: 1, disk_bytes: limits.disk_bytes, ..Self::of_limits(limits) }
    }

    /// Returns the use of a snapshot of a workspace with these limits; it stands until the snapshot's size is known.
    pub fn of_snapshot(limits: &ResourceLimits) -> Self {
        Self { snapshots: 1, disk_bytes: limits.disk_bytes, ..Self::default() }
    }

    /// Returns the difference to another use, figure by figure; a figure that is less than the other's gives 0.
    pub fn beyond(&self, other: &Self) -> Self {
        Self {
            active: self.active.saturating_sub(other.active),
            total: self.total.saturating_sub(other.total),
            cpu: (self.cpu - other.cpu).max(0.0),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pids: self.pids.saturating_sub(other.pids),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
            mcp_servers: self.mcp_servers.saturating_sub(other.mcp_servers),
            snapshots: self.snapshots.saturating_sub(other.snapshots),
        }
    }

    fn of_limits(limits: &ResourceLimits) -> Self {
        let &ResourceLimits { cpu, memory_bytes, pids, .. } = limits;
        Self { cpu, memory_bytes, pids: pids.into(), ..Self::default() }
    }
}

// === impl Measure ===

impl Measure {
    /// All measures, in the order in which they are told.
    pub const ALL: [Self; 8] =
        [Self::Total, Self::Active, Self::McpServers, Self::Snapshots, Self::Cpu, Self::Memory, Self::Pids, Self::Disk];

    /// The figure's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "max_total",
            Self::Active => "max_active",
            Self::McpServers => "max_mcp_servers",
            Self::Snapshots => "max_snapshots",
            Self::Cpu => "max_cpu",
            Self::Memory => "max_memory",
            Self::Pids => "max_pids",
            Self::Disk => "max_disk",
        }
    }

    /// The name of the client's option that sets the figure.
    fn option(self) -> String {
        self.as_str().replace('_', "-")
    }

    /// An amount in words.
    fn show(self, amount: u64) -> Amount {
        Amount { measure: self, amount }
    }

    fn limit(self, quota: &Quota) -> Option<u64> {
        match self {
            Self::Total => quota.max_total.map(u64::from),
            Self::Active => quota.max_active.map(u64::from),
            Self::McpServers => quota.max_mcp_servers.map(u64::from),
            Self::Snapshots => quota.max_snapshots.map(u64::from),
            Self::Cpu => quota.max_cpu.map(parts_of_cores),
            Self::Memory => quota.max_memory_bytes,
            Self::Pids => quota.max_pids,
            Self::Disk => quota.max_disk_bytes,
        }
    }

    fn of(self, used: &QuotaUse) -> u64 {
        match self {
            Self::Total => used.total,
            Self::Active => used.active,
            Self::McpServers => used.mcp_servers,
            Self::Snapshots => used.snapshots,
            Self::Cpu => parts_of_cores(used.cpu),
            Self::Memory => used.memory_bytes,
            Self::Pids => used.pids,
            Self::Disk => used.disk_bytes,
        }
    }

    /// The project's figure, as a whole number.
    fn column(self) -> Expr {
        match self {
            Self::Total => Expr::col(ProjectColumn::QuotaMaxTotal),
            Self::Active => Expr::col(ProjectColumn::QuotaMaxActive),
            Self::McpServers => Expr::col(ProjectColumn::QuotaMaxMcpServers),
            Self::Snapshots => Expr::col(ProjectColumn::QuotaMaxSnapshots),
            Self::Cpu => whole(Func::round(Expr::col(ProjectColumn::QuotaMaxCpu).mul(CORE))),
            Self::Memory => Expr::col(ProjectColumn::QuotaMaxMemoryBytes),
            Self::Pids => Expr::col(ProjectColumn::QuotaMaxPids),
            Self::Disk => Expr::col(ProjectColumn::QuotaMaxDiskBytes),
        }
    }

    /// Returns the expression for a project's use of the measure.
    fn used(self, project: ProjectId) -> Expr {
        let servers = |amount: Expr| servers_of(project, amount);
        match self {
            Self::Total => kept_of(project, Some(ContainerKind::AgentWorkspace), count()),
            Self::Active => active_of(project, Some(ContainerKind::AgentWorkspace), count()),
            Self::McpServers => servers(count()).add(kept_of(project, Some(ContainerKind::McpServer), count())),
            Self::Snapshots => snapshots_of(project, count()),
            Self::Cpu => servers(cpu(McpColumn::Cpu)).add(active_of(project, None, cpu(Column::Cpu))),
            Self::Memory => {
                servers(sum(McpColumn::MemoryBytes)).add(active_of(project, None, sum(Column::MemoryBytes)))
            }
            Self::Pids => servers(sum(McpColumn::Pids)).add(active_of(project, None, sum(Column::Pids))),
            Self::Disk => servers(sum(McpColumn::DiskBytes))
                .add(kept_of(project, None, sum(Column::DiskBytes)))
                .add(snapshots_of(project, snapshot_bytes()))
                .add(crate::pulled_images::bytes_of(project)),
        }
    }
}

/// An amount of a measure, for people.
struct Amount {
    measure: Measure,
    amount: u64,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.amount;
        match self.measure {
            Measure::Total | Measure::Active => write!(f, "{amount} workspaces"),
            Measure::McpServers => write!(f, "{amount} MCP servers"),
            Measure::Snapshots => write!(f, "{amount} snapshots"),
            Measure::Pids => write!(f, "{amount} processes"),
            Measure::Cpu => write!(f, "{}.{:03} cores", amount / 1_000, amount % 1_000),
            Measure::Memory | Measure::Disk => write!(f, "{} MiB", amount >> 20),
        }
    }
}

/// Cores in thousandths of one.
fn parts_of_cores(cores: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cut to the integer's range, and cores are few and not below none"
    )]
    let parts = (cores * CORE).round() as u64;
    parts
}

/// Whether a workspace counts: its row's form of [`StateKind::COUNTED`]. That it is starting is a column of its own.
pub(crate) fn is_counted() -> Expr {
    Column::State.is_in(StateKind::COUNTED.map(StateKind::as_str)).or(Column::Starting.eq(true))
}

/// Whether a project's quotas have room for so much more: [`Quota::reached`] as a condition.
pub(crate) fn has_room(project: ProjectId, wanted: &QuotaUse) -> Expr {
    let mut quota = Query::select();
    quota.expr(Expr::value(1)).from(project::Entity).and_where(ProjectColumn::Id.eq(project.as_uuid()));
    for measure in Measure::ALL {
        let more = signed(measure.of(wanted));
        if more > 0 {
            let limit = measure.column();
            quota.and_where(limit.clone().is_null().or(limit.gte(measure.used(project).add(more))));
        }
    }
    Expr::exists(quota)
}

/// How much a project has, through `connection`.
pub(crate) async fn used_by(connection: &impl ConnectionTrait, project: ProjectId) -> Result<QuotaUse, StoreError> {
    const DOING: &str = "count what a project has";
    let mut select = Query::select();
    for measure in Measure::ALL {
        select.expr_as(measure.used(project), measure.as_str());
    }
    let row = connection.query_one(&select).await.doing(DOING)?;
    let Some(row) = row else { return Ok(QuotaUse::default()) };
    let of = |measure: Measure| {
        let amount: i64 = row.try_get("", measure.as_str()).doing(DOING)?;
        from_integer::<u64>(measure.as_str(), amount)
    };
    Ok(QuotaUse {
        active: of(Measure::Active)?,
        total: of(Measure::Total)?,
        cpu: cores(of(Measure::Cpu)?),
        memory_bytes: of(Measure::Memory)?,
        pids: of(Measure::Pids)?,
        disk_bytes: of(Measure::Disk)?,
        mcp_servers: of(Measure::McpServers)?,
        snapshots: of(Measure::Snapshots)?,
    })
}

/// Returns the quota of a project that has no room for so much more.
pub(crate) async fn over_quota(
    connection: &impl ConnectionTrait,
    project: ProjectId,
    wanted: &QuotaUse,
) -> Result<Option<QuotaReached>, StoreError> {
    let quota = quota_of(connection, project).await?;
    Ok(quota.reached(&used_by(connection, project).await?, wanted))
}

/// Thousandths of cores as cores.
fn cores(parts: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer cores than a float is exact for")]
    let parts = parts as f64;
    parts / CORE
}

/// A project's quotas, through `connection`.
pub(crate) async fn quota_of(connection: &impl ConnectionTrait, project: ProjectId) -> Result<Quota, StoreError> {
    let row = project::Entity::find_by_id(project.as_uuid()).one(connection).await.doing("read a quota")?;
    row.map_or(Ok(Quota::default()), |row| quota(&row))
}

fn quota(row: &project::Model) -> Result<Quota, StoreError> {
    let whole = |number: Option<i32>| number.map(|number| from_integer("quota", number.into())).transpose();
    let large = |number: Option<i64>| number.map(|number| from_integer("quota", number)).transpose();
    Ok(Quota {
        max_active: whole(row.quota_max_active)?,
        max_total: whole(row.quota_max_total)?,
        max_cpu: row.quota_max_cpu,
        max_memory_bytes: large(row.quota_max_memory_bytes)?,
        max_pids: large(row.quota_max_pids)?,
        max_disk_bytes: large(row.quota_max_disk_bytes)?,
        max_mcp_servers: whole(row.quota_max_mcp_servers)?,
        max_snapshots: whole(row.quota_max_snapshots)?,
    })
}

fn count() -> Expr {
    Func::count(Expr::col(Asterisk)).into()
}

/// PostgreSQL adds integers up to a type of its own.
fn whole(number: impl Into<Expr>) -> Expr {
    number.into().cast_as(Alias::new("bigint"))
}

fn or_none(sum: Expr) -> Expr {
    Func::coalesce([sum, Expr::value(0_i64)]).into()
}

fn sum(column: impl IntoColumnRef) -> Expr {
    or_none(whole(Func::sum(Expr::col(column))))
}

fn cpu(column: impl IntoColumnRef) -> Expr {
    or_none(whole(Func::round(Expr::from(Func::sum(Expr::col(column))).mul(CORE))))
}

/// Bytes of snapshots: the known size, or else the disk limit. A snapshot that could not be taken has neither.
fn snapshot_bytes() -> Expr {
    let known = Expr::col(SnapshotColumn::RootBytes).add(Expr::col(SnapshotColumn::WorkspaceBytes));
    let expected = Expr::col(SnapshotColumn::DiskBytes);
    or_none(whole(Func::sum(Func::coalesce([known, expected]))))
}

/// Workspaces of a project, of one kind or of all, that are not destroyed.
fn kept_of(project: ProjectId, kind: Option<ContainerKind>, amount: Expr) -> Expr {
    let kept = Column::State.ne(StateKind::Destroyed.as_str());
    subquery(workspaces_of(project, kind, amount).and_where(kept))
}

/// Workspaces of a project, of one kind or of all, that run or are about to.
fn active_of(project: ProjectId, kind: Option<ContainerKind>, amount: Expr) -> Expr {
    subquery(workspaces_of(project, kind, amount).and_where(is_counted()))
}

fn workspaces_of(project: ProjectId, kind: Option<ContainerKind>, amount: Expr) -> SelectStatement {
    let mut select = Query::select();
    select.expr(amount).from(workspace::Entity).and_where(Column::ProjectId.eq(project.as_uuid()));
    if let Some(kind) = kind {
        select.and_where(Column::Kind.eq(kind.as_str()));
    }
    select
}

fn servers_of(project: ProjectId, amount: Expr) -> Expr {
    let mut select = Query::select();
    select.expr(amount).from(mcp_server::Entity).and_where(McpColumn::ProjectId.eq(project.as_uuid()));
    subquery(&select)
}

fn snapshots_of(project: ProjectId, amount: Expr) -> Expr {
    let mut select = Query::select();
    select
        .expr(amount)
        .from(snapshot::Entity)
        .and_where(SnapshotColumn::ProjectId.eq(project.as_uuid()))
        .and_where(SnapshotColumn::State.ne(SnapshotStateKind::Error.as_str()));
    subquery(&select)
}

fn subquery(select: &SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(select.clone().into()))
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
        let large = |number: Option<u64>| number.map(signed);
        let update = project::Entity::update_many()
            .filter(ProjectColumn::Id.eq(id.as_uuid()))
            .col_expr(ProjectColumn::QuotaMaxActive, Expr::value(whole(quota.max_active)))
            .col_expr(ProjectColumn::QuotaMaxTotal, Expr::value(whole(quota.max_total)))
            .col_expr(ProjectColumn::QuotaMaxCpu, Expr::value(quota.max_cpu))
            .col_expr(ProjectColumn::QuotaMaxMemoryBytes, Expr::value(large(quota.max_memory_bytes)))
            .col_expr(ProjectColumn::QuotaMaxPids, Expr::value(large(quota.max_pids)))
            .col_expr(ProjectColumn::QuotaMaxDiskBytes, Expr::value(large(quota.max_disk_bytes)))
            .col_expr(ProjectColumn::QuotaMaxMcpServers, Expr::value(whole(quota.max_mcp_servers)))
            .col_expr(ProjectColumn::QuotaMaxSnapshots, Expr::value(whole(quota.max_snapshots)));
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

    const LIMITS: ResourceLimits = ResourceLimits { cpu: 0.1, memory_bytes: 10, disk_bytes: 100, pids: 5 };

    #[test]
    fn a_quota_names_what_has_no_room() {
        let wanted = QuotaUse::of_workspace(ContainerKind::AgentWorkspace, &LIMITS, true);
        let used = QuotaUse {
            active: 2,
            total: 3,
            cpu: 0.2,
            memory_bytes: 20,
            pids: 5,
            disk_bytes: 200,
            mcp_servers: 1,
            snapshots: 1,
        };
        let none = Quota::default();
        assert_eq!(none.reached(&used, &wanted), None);
        let exact = Quota {
            max_active: Some(3),
            max_total: Some(4),
            max_cpu: Some(0.3),
            max_memory_bytes: Some(30),
            max_pids: Some(10),
            max_disk_bytes: Some(300),
            max_mcp_servers: Some(0),
            max_snapshots: Some(0),
        };
        assert_eq!(exact.reached(&used, &wanted), None, "0.1 + 0.2 cores fit into 0.3");
        let named = |quota: Quota, wanted: QuotaUse| quota.reached(&used, &wanted).map(|reached| reached.measure);
        for (quota, measure) in [
            (Quota { max_active: Some(2), ..exact }, Measure::Active),
            (Quota { max_total: Some(3), ..exact }, Measure::Total),
            (Quota { max_cpu: Some(0.25), ..exact }, Measure::Cpu),
            (Quota { max_memory_bytes: Some(29), ..exact }, Measure::Memory),
            (Quota { max_pids: Some(9), ..exact }, Measure::Pids),
            (Quota { max_disk_bytes: Some(299), ..exact }, Measure::Disk),
        ] {
            assert_eq!(named(quota, wanted), Some(measure));
        }
        let again = QuotaUse::of_workspace(ContainerKind::AgentWorkspace, &LIMITS, false);
        let kept = Quota { max_total: Some(0), max_disk_bytes: Some(0), ..exact };
        assert_eq!(named(kept, again), None, "one that is started again is kept already");
        assert_eq!(named(exact, QuotaUse::of_mcp_server(&LIMITS)), Some(Measure::McpServers));
        assert_eq!(named(exact, QuotaUse::of_snapshot(&LIMITS)), Some(Measure::Snapshots));
    }

    #[test]
    fn a_refusal_says_what_there_is_and_how_to_get_more() {
        let reached = QuotaReached { measure: Measure::Cpu, most: 2_500, used: 2_000, wanted: 1_000 };
        let told = reached.to_string();
        for part in ["max_cpu", "2.500 cores", "2.000 cores", "1.000 cores", "emergent project quota PROJECT --max-cpu"]
        {
            assert!(told.contains(part), "{told}");
        }
    }
}
