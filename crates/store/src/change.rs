//! The properties of a workspace that can be changed while it lives.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_types::WorkspaceId;
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, JsonValue,
    QueryFilter as _, QuerySelect as _,
};

use crate::{
    IdlePolicy, ProjectId, StateKind, Store, StoreError, WorkspaceRow,
    connection::Alone,
    entity::workspace::{Column, Entity},
    error::Doing as _,
    model::words::storable,
    names,
};

/// A change of a workspace; a property that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceChange {
    /// The workspace's name; `Some(None)` removes it.
    pub name: Option<Option<String>>,
    /// All labels of the workspace.
    pub labels: Option<BTreeMap<String, String>>,
    /// The time from which the workspace may be destroyed; `Some(None)` for never.
    pub expires_at: Option<Option<DateTime<Utc>>>,
    /// The action that follows when nobody uses the workspace, and its delay.
    pub idle: Option<IdlePolicy>,
}

/// The end of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// The workspace is as the row says.
    Row(Box<WorkspaceRow>),
    /// There is no such workspace to change.
    Gone,
    /// This other workspace of the project has the name. Nothing was changed.
    NameTaken(WorkspaceId),
}

// === impl Store ===

impl Store {
    /// Changes a workspace of a project, unless it is destroyed or being destroyed. `change` is worked out from the row
    /// as it is, and nobody else changes the row meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, or the error of `change`; nothing was changed then.
    pub async fn workspaces_change<E: From<StoreError>>(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        change: impl FnOnce(&WorkspaceRow) -> Result<WorkspaceChange, E>,
    ) -> Result<Changed, E> {
        // Alone with those who admit workspaces: both give names.
        let transaction = self.writer.begin_alone(Alone::Places, "begin changing a workspace").await?;
        let gone = [StateKind::Destroying, StateKind::Destroyed].map(StateKind::as_str);
        let found = Entity::find_by_id(id.as_uuid())
            .filter(Column::ProjectId.eq(project.as_uuid()))
            .filter(Column::State.is_not_in(gone))
            // Where others write at the same time, they wait; SQLite has one writer and knows no such lock.
            .lock_exclusive();
        let Some(model) = found.one(&transaction).await.doing("read a workspace")? else { return Ok(Changed::Gone) };
        let row = WorkspaceRow::try_from(model.clone())?;
        let change = change(&row)?;
        if change == WorkspaceChange::default() {
            return Ok(Changed::Row(Box::new(row)));
        }
        let mut model = model.into_active_model();
        if let Some(name) = change.name {
            if let Some(name) = &name
                && row.name.as_ref() != Some(name)
                && let Some(holder) = names::holder(&transaction, project, name).await?
            {
                return Ok(Changed::NameTaken(holder));
            }
            model.name = Set(name.as_deref().map(storable));
        }
        if let Some(labels) = change.labels {
            let labels = labels.into_iter().map(|(key, value)| (key, JsonValue::from(value))).collect();
            model.labels = Set(JsonValue::Object(labels));
        }
        if let Some(expires_at) = change.expires_at {
            model.expires_at = Set(expires_at.map(|at| at.trunc_subsecs(6)));
        }
        if let Some(idle) = change.idle {
            model.idle_action = Set(idle.action.as_str().to_owned());
            model.idle_after_ms = Set(idle.after_ms());
        }
        let changed = model.update(&transaction).await.doing("change a workspace")?;
        transaction.commit().await.doing("change a workspace")?;
        Ok(Changed::Row(Box::new(WorkspaceRow::try_from(changed)?)))
    }
}
