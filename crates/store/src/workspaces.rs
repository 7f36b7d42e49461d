//! The rows of workspaces.

use chrono::{DateTime, Utc};
use emergent_provider::{ContainerKind, ProviderKind};
use emergent_types::{ServerId, WorkspaceId};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, JsonValue, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Select,
    sea_query::{BinOper, Expr, ExprTrait as _, Func, IntoIden},
};

use crate::{
    Cursor, DestroyReason, MadeSandbox, Page, PageRequest, PassedOver, ProjectId, QuotaReached, StateKind, Store,
    StoreError, WorkspaceRow, WorkspaceState,
    entity::workspace::{Column, Entity},
    error::Doing as _,
    model::{
        row::passed_over_json,
        words::{Word as _, from_integer, parse, storable},
    },
    quotas::is_counted,
    time::now,
};

/// The workspaces of a project to list. Every part narrows the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// In one of these states; empty for any.
    pub states: Vec<StateKind>,
    /// Of this kind.
    pub kind: Option<ContainerKind>,
    /// Of this provider.
    pub provider: Option<ProviderKind>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
    /// Destroyed ones too. They are listed anyway when `states` names them.
    pub include_destroyed: bool,
}

/// Whether a workspace that does not run may be started.
#[derive(Debug, Clone, PartialEq)]
pub enum StartClaim {
    /// The workspace holds a place now.
    Claimed,
    /// There is no room.
    Full,
    /// The project may not have that much more.
    OverQuota(QuotaReached),
}

// === impl Store ===

impl Store {
    /// Records why a workspace rests, or is about to: because nobody used it, or because somebody asked for it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_note_suspended_by_idle(
        &self,
        id: WorkspaceId,
        suspended_by_idle: bool,
    ) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .col_expr(Column::Idled, Expr::value(suspended_by_idle))
            .exec(self.writer.connection());
        update.await.doing("record why a workspace rests").map(drop)
    }

    /// One workspace of a project, destroyed or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_get(
        &self,
        project: ProjectId,
        id: WorkspaceId,
    ) -> Result<Option<WorkspaceRow>, StoreError> {
        let by_id = Entity::find_by_id(id.as_uuid()).filter(Column::ProjectId.eq(project.as_uuid()));
        let row = by_id.one(self.reader.connection()).await.doing("read a workspace")?;
        row.map(WorkspaceRow::try_from).transpose()
    }

    /// Returns one workspace, of any project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_find(&self, id: WorkspaceId) -> Result<Option<WorkspaceRow>, StoreError> {
        let row = Entity::find_by_id(id.as_uuid()).one(self.reader.connection()).await.doing("read a workspace")?;
        row.map(WorkspaceRow::try_from).transpose()
    }

    /// A page of a project's workspaces, newest first. `page.limit` is taken as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_list(
        &self,
        project: ProjectId,
        filter: &ListFilter,
        page: PageRequest,
    ) -> Result<Page<WorkspaceRow>, StoreError> {
        let mut select = filter.apply(Entity::find().filter(Column::ProjectId.eq(project.as_uuid())));
        if let Some(Cursor { created_at, id }) = page.cursor {
            let same_instant = Column::CreatedAt.eq(created_at).and(Column::Id.lt(id));
            select = select.filter(Column::CreatedAt.lt(created_at).or(same_instant));
        }
        let one_more = u64::from(page.limit) + 1;
        let newest_first = select.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).limit(one_more);
        let rows = newest_first.all(self.reader.connection()).await.doing("list workspaces")?;
        let rows = rows.into_iter().map(WorkspaceRow::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, page.limit, |row| Cursor { created_at: row.created_at, id: row.id.as_uuid() }))
    }

    /// Every workspace that a server drives and that is not destroyed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_of(&self, server: ServerId) -> Result<Vec<WorkspaceRow>, StoreError> {
        self.select_all(driven_by(server), "list a server's workspaces").await
    }

    /// The workspaces of a server whose time was up at `at` and that are not destroyed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_expired(
        &self,
        server: ServerId,
        at: DateTime<Utc>,
    ) -> Result<Vec<WorkspaceRow>, StoreError> {
        self.select_all(driven_by(server).filter(Column::ExpiresAt.lte(at)), "list expired workspaces").await
    }

    /// Returns the number of agent workspaces of each provider that count towards the limit, of one project or of all;
    /// providers without any are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_active(&self, project: Option<ProjectId>) -> Result<Vec<(ProviderKind, u64)>, StoreError> {
        let by_provider = Entity::find()
            .select_only()
            .column(Column::Provider)
            .column_as(Column::Id.count(), "active")
            .filter(Column::Kind.eq(ContainerKind::AgentWorkspace.as_str()))
            .filter(is_counted())
            .filter(Condition::all().add_option(project.map(|project| Column::ProjectId.eq(project.as_uuid()))))
            .group_by(Column::Provider)
            .into_tuple::<(String, i64)>();
        let counts = by_provider.all(self.reader.connection()).await.doing("count workspaces")?;
        let count =
            |(provider, count): (String, i64)| Ok((parse("provider", &provider)?, from_integer("count", count)?));
        counts.into_iter().map(count).collect()
    }

    /// Records a state, if the workspace is this server's and in one of `from` now. `None`: it is not, and nothing was
    /// changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_record(
        &self,
        id: WorkspaceId,
        from: &[StateKind],
        to: &WorkspaceState,
    ) -> Result<Option<WorkspaceRow>, StoreError> {
        let (reason, message) = match to {
            WorkspaceState::Error { reason, message } => (Some(reason.as_str()), Some(storable(message))),
            WorkspaceState::Creating
            | WorkspaceState::Ready
            | WorkspaceState::Paused
            | WorkspaceState::Stopping
            | WorkspaceState::Stopped
            | WorkspaceState::Destroying
            | WorkspaceState::Destroyed => (None, None),
        };
        let mut update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::ServerId.eq(self.server_id().as_uuid()))
            .filter(Column::State.is_in(from.iter().map(|state| state.as_str())))
            .col_expr(Column::State, Expr::value(to.word().as_str()))
            .col_expr(Column::Starting, Expr::value(false))
            .col_expr(Column::ErrorReason, Expr::value(reason))
            .col_expr(Column::ErrorMessage, Expr::value(message));
        // At rest it stays somebody's will or nobody's; whatever else it becomes, it no longer rests.
        if !matches!(to, WorkspaceState::Paused | WorkspaceState::Stopping | WorkspaceState::Stopped) {
            update = update.col_expr(Column::Idled, Expr::value(false));
        }
        if *to == WorkspaceState::Ready {
            let first = Func::coalesce([Expr::col(Column::ReadyAt), Expr::value(now())]);
            update = update.col_expr(Column::ReadyAt, first.into());
        }
        if *to == WorkspaceState::Destroyed {
            update = update
                .col_expr(Column::DestroyedAt, Expr::value(now()))
                .col_expr(Column::EnvironmentKeys, Expr::value(JsonValue::Array(Vec::new())));
        }
        let changed = update.exec_with_returning(self.writer.connection()).await.doing("record a state")?;
        changed.into_iter().next().map(WorkspaceRow::try_from).transpose()
    }

    /// Records the provider's report of a sandbox.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_record_made(&self, id: WorkspaceId, made: &MadeSandbox) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::ServerId.eq(self.server_id().as_uuid()))
            .col_expr(Column::Warm, Expr::value(false))
            .col_expr(Column::Runtime, Expr::value(made.runtime.as_str()))
            .col_expr(Column::Isolation, Expr::value(made.isolation.word()))
            .col_expr(Column::Warnings, Expr::value(JsonValue::from(made.warnings.clone())));
        update.exec(self.writer.connection()).await.doing("record a sandbox")?;
        Ok(())
    }

    /// Records that another provider makes a workspace, since those of `passed_over` could not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_record_provider(
        &self,
        id: WorkspaceId,
        provider: ProviderKind,
        passed_over: &[PassedOver],
    ) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .col_expr(Column::Provider, Expr::value(provider.as_str()))
            .col_expr(Column::PassedOver, Expr::value(passed_over_json(passed_over)));
        update.exec(self.writer.connection()).await.doing("record a provider")?;
        Ok(())
    }

    /// Records the warning of a workspace that is over its disk limit, or that it no longer is. Returns whether that is
    /// news, to one caller alone.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspaces_disk_warning(&self, id: WorkspaceId, warning: Option<&str>) -> Result<bool, StoreError> {
        let is_news = if warning.is_some() { Column::DiskWarning.is_null() } else { Column::DiskWarning.is_not_null() };
        let update = Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(is_news)
            .col_expr(Column::DiskWarning, Expr::value(warning));
        let updated = update.exec(self.writer.connection()).await.doing("record a warning")?;
        Ok(updated.rows_affected > 0)
    }

    /// Records when workspaces were last called.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; then none of them was recorded.
    pub async fn workspaces_touch(&self, used: &[(WorkspaceId, DateTime<Utc>)]) -> Result<(), StoreError> {
        let transaction = self.writer.begin("begin recording use").await?;
        for (id, at) in used {
            let update = Entity::update_many()
                .filter(Column::Id.eq(id.as_uuid()))
                .col_expr(Column::LastUsedAt, Expr::value(*at));
            update.exec(&transaction).await.doing("record use")?;
        }
        transaction.commit().await.doing("record use")
    }

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
            .filter(Column::State.ne(StateKind::Destroyed.as_str()))
            .col_expr(Column::State, Expr::value(StateKind::Destroying.as_str()))
            .col_expr(Column::Starting, Expr::value(false))
            .col_expr(Column::Idled, Expr::value(false))
            .col_expr(Column::ErrorReason, Expr::value(None::<String>))
            .col_expr(Column::ErrorMessage, Expr::value(None::<String>))
            .col_expr(Column::DestroyReason, first.into());
        if let Some(at) = if_expired_at {
            // One that is being destroyed already goes on, whatever its time.
            let destroying = Column::State.eq(StateKind::Destroying.as_str());
            update = update.filter(Column::ExpiresAt.lte(at).or(destroying));
        }
        let changed = update.exec_with_returning(self.writer.connection()).await.doing("record a destruction")?;
        changed.into_iter().next().map(WorkspaceRow::try_from).transpose()
    }

    async fn select_all(&self, select: Select<Entity>, action: &'static str) -> Result<Vec<WorkspaceRow>, StoreError> {
        let rows = select.all(self.reader.connection()).await.doing(action)?;
        rows.into_iter().map(WorkspaceRow::try_from).collect()
    }
}

fn driven_by(server: ServerId) -> Select<Entity> {
    Entity::find().filter(Column::ServerId.eq(server.as_uuid())).filter(Column::State.ne(StateKind::Destroyed.as_str()))
}

// === impl ListFilter ===

impl ListFilter {
    fn apply(&self, select: Select<Entity>) -> Select<Entity> {
        let mut condition = Condition::all();
        if !self.states.is_empty() {
            let rests =
                Column::State.is_in(self.states.iter().map(|state| state.as_str())).and(Column::Starting.eq(false));
            let starting = self.states.contains(&StateKind::Starting);
            condition = condition.add(if starting { rests.or(Column::Starting.eq(true)) } else { rests });
        } else if !self.include_destroyed {
            condition = condition.add(Column::State.ne(StateKind::Destroyed.as_str()));
        }
        if let Some(kind) = self.kind {
            condition = condition.add(Column::Kind.eq(kind.as_str()));
        }
        if let Some(provider) = self.provider {
            condition = condition.add(Column::Provider.eq(provider.as_str()));
        }
        if let Some(name) = &self.name {
            condition = condition.add(Column::Name.eq(storable(name)));
        }
        if let Some((key, value)) = &self.label {
            condition = condition.add(label_is(Column::Labels, key, value));
        }
        select.filter(condition)
    }
}

/// Whether a text can be the key of a label: 1 to 63 of `A-Z a-z 0-9 . _ / -`, the first a letter. Every database can
/// then look it up without quoting.
pub fn is_label_key(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte))
}

/// Whether a column of labels has the label with this key and value.
pub(crate) fn label_is(labels: impl IntoIden, key: &str, value: &str) -> Expr {
    if !is_label_key(key) {
        return Expr::value(false);
    }
    Expr::col(labels.into_iden()).binary(BinOper::Custom("->>"), Expr::value(key)).eq(storable(value))
}
