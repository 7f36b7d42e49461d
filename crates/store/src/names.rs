//! Names of workspaces: at most one live workspace of a project has a name, so that a name can stand for its workspace.

use std::collections::BTreeSet;

use emergent_types::WorkspaceId;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QuerySelect as _, Select,
    sea_query::ExprTrait as _,
};
use uuid::Uuid;

use crate::{
    ProjectId, StateKind, Store, StoreError,
    entity::workspace::{Column, Entity},
    error::Doing as _,
};

// === impl Store ===

impl Store {
    /// The workspace of a project that a name stands for.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspace_named(&self, project: ProjectId, name: &str) -> Result<Option<WorkspaceId>, StoreError> {
        holder(self.reader.connection(), project, name).await
    }

    /// All names that stand for a workspace of a project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn workspace_names(&self, project: ProjectId) -> Result<BTreeSet<String>, StoreError> {
        let names = named(project).select_only().column(Column::Name).into_tuple::<Option<String>>();
        let names = names.all(self.reader.connection()).await.doing("list the names of workspaces")?;
        Ok(names.into_iter().flatten().collect())
    }
}

/// The workspace that holds a name. Those who give names take turns ([`Alone::Places`](crate::connection::Alone)), so
/// that no two workspaces get the same one.
pub(crate) async fn holder(
    connection: &impl ConnectionTrait,
    project: ProjectId,
    name: &str,
) -> Result<Option<WorkspaceId>, StoreError> {
    let id = named(project).filter(Column::Name.eq(name)).select_only().column(Column::Id).into_tuple::<Uuid>();
    Ok(id.one(connection).await.doing("look for a workspace by its name")?.map(WorkspaceId::from))
}

/// The workspaces that hold their names. Those that are gone do not; nor do those that could not be made, so that a
/// create can be repeated under the same name.
fn named(project: ProjectId) -> Select<Entity> {
    let gone = [StateKind::Destroying, StateKind::Destroyed].map(StateKind::as_str);
    let was_made = Column::State.ne(StateKind::Error.as_str()).or(Column::ReadyAt.is_not_null());
    Entity::find()
        .filter(Column::ProjectId.eq(project.as_uuid()))
        .filter(Column::State.is_not_in(gone))
        .filter(was_made)
        .filter(Column::Name.is_not_null())
}
