//! Projects, which own the other rows. A project is made when it is first named, and none is ever renamed.

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _,
    sea_query::OnConflict,
};

use crate::{ProjectId, Store, StoreError, entity::project, error::Doing as _, model::words::storable, time::now};

/// Finds a project by its name, or makes it: of callers that ask at once, one makes it.
pub(crate) async fn find_or_make(connection: &impl ConnectionTrait, name: &str) -> Result<ProjectId, StoreError> {
    let name = &storable(name);
    let new = project::ActiveModel {
        id: Set(ProjectId::generate().as_uuid()),
        name: Set(name.clone()),
        created_at: Set(now()),
        ..project::ActiveModel::default()
    };
    let unless_there = OnConflict::column(project::Column::Name).do_nothing().to_owned();
    let insert = project::Entity::insert(new).on_conflict(unless_there);
    insert.exec_without_returning(connection).await.doing("record a project")?;
    let by_name = project::Entity::find().filter(project::Column::Name.eq(name));
    let row = by_name.one(connection).await.and_then(|row| row.ok_or_else(|| missing(name)));
    Ok(row.doing("find a project")?.id.into())
}

/// The error of a project that is not there.
pub(crate) fn missing(what: &str) -> DbErr {
    DbErr::RecordNotFound(format!("project {what}"))
}

// === impl Store ===

impl Store {
    /// The project of this name, which is made if it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn projects_ensure(&self, name: &str) -> Result<ProjectId, StoreError> {
        find_or_make(self.writer.connection(), name).await
    }

    /// The name of a project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, also when there is no such project.
    pub async fn projects_name(&self, id: ProjectId) -> Result<String, StoreError> {
        let row = project::Entity::find_by_id(id.as_uuid()).one(self.reader.connection()).await;
        let row = row.and_then(|row| row.ok_or_else(|| missing(&id.to_string())));
        Ok(row.doing("find a project")?.name)
    }
}
