//! The images that servers have had pulled, each for one project: an image that was pulled for one project is not
//! available to another one. An image that nobody uses is removed.
//!
//! A row is there before the pull is. One without an id belongs to a pull that is under way or was cut short.

use chrono::{DateTime, Utc};
use emergent_provider::ImageRef;
use emergent_types::ServerId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, ConnectionTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::{Alias, Expr, ExprTrait as _, Func, OnConflict, Query},
};

use crate::{
    ProjectId, Store, StoreError,
    entity::pulled_image::{ActiveModel, Column, Entity, Model},
    error::Doing as _,
    model::words::{from_integer, signed},
    time::now,
};

/// An image that was pulled for a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// The server on whose engine the image is.
    pub server: ServerId,
    /// The project that the image was pulled for.
    pub project: ProjectId,
    /// The reference under which the image was pulled.
    pub image: ImageRef,
    /// The engine's id of the image; `None` while it is being pulled.
    pub id: Option<String>,
    /// The image's size in bytes, with layers that it shares with others.
    pub bytes: u64,
    /// The time at which a workspace or a hosted server was last made from the image.
    pub last_used_at: DateTime<Utc>,
}

/// Bytes of the images that were pulled for a project, for a statement that looks at what the project has.
pub(crate) fn bytes_of(project: ProjectId) -> Expr {
    // PostgreSQL adds integers up to a type of its own.
    let sum = Expr::from(Func::sum(Expr::col(Column::Bytes))).cast_as(Alias::new("bigint"));
    let sum = Func::coalesce([sum, Expr::value(0_i64)]);
    let mut select = Query::select();
    select.expr(sum).from(Entity).and_where(Column::ProjectId.eq(project.as_uuid()));
    Expr::SubQuery(None, Box::new(select.into()))
}

// === impl Store ===

impl Store {
    /// The images that were pulled under a reference, by every server, since several may drive one engine, and for
    /// every project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images(&self, image: &ImageRef) -> Result<Vec<PulledImage>, StoreError> {
        let select = Entity::find().filter(Column::Reference.eq(image.as_str()));
        let rows = select.all(self.reader.connection()).await.doing("look for pulled images")?;
        rows.into_iter().map(PulledImage::try_from).collect()
    }

    /// Records that a project is about to use an image that it has pulled, or is about to pull.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_begin(&self, project: ProjectId, image: &ImageRef) -> Result<(), StoreError> {
        let row = ActiveModel {
            server_id: Set(self.server_id().as_uuid()),
            project_id: Set(project.as_uuid()),
            reference: Set(image.to_string()),
            image_id: Set(None),
            bytes: Set(0),
            last_used_at: Set(now()),
        };
        let key = [Column::ServerId, Column::ProjectId, Column::Reference];
        let again = OnConflict::columns(key).update_column(Column::LastUsedAt).to_owned();
        let insert = Entity::insert(row).on_conflict(again).exec_without_returning(self.writer.connection());
        insert.await.doing("record a pull")?;
        Ok(())
    }

    /// Records the image that a project has pulled.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_record(
        &self,
        project: ProjectId,
        image: &ImageRef,
        id: &str,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(self.of_project(project, image))
            .col_expr(Column::ImageId, Expr::value(id))
            .col_expr(Column::Bytes, Expr::value(signed(bytes)))
            .col_expr(Column::LastUsedAt, Expr::value(now()));
        update.exec(self.writer.connection()).await.doing("record a pulled image")?;
        Ok(())
    }

    /// Removes the record of a pull that came to nothing. The record of an earlier pull stays.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_give_up(&self, project: ProjectId, image: &ImageRef) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(self.of_project(project, image).add(Column::ImageId.is_null()));
        delete.exec(self.writer.connection()).await.doing("take a pull back")?;
        Ok(())
    }

    /// The images that this server has pulled and that nothing was made from since `before`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_unused(&self, before: DateTime<Utc>) -> Result<Vec<PulledImage>, StoreError> {
        let select = Entity::find().filter(self.own_pulled().add(Column::LastUsedAt.lt(before)));
        let rows = select.all(self.reader.connection()).await.doing("look for unused images")?;
        rows.into_iter().map(PulledImage::try_from).collect()
    }

    /// Forgets an image that was pulled for a project and not used since `before`. False: it was used since.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_forget(
        &self,
        project: ProjectId,
        image: &ImageRef,
        before: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let unused = self.of_project(project, image).add(Column::LastUsedAt.lt(before));
        let deleted = Entity::delete_many().filter(unused).exec(self.writer.connection()).await;
        Ok(deleted.doing("forget a pulled image")?.rows_affected > 0)
    }

    /// Bytes of the images that were pulled for a project, on all servers together.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn pulled_images_bytes(&self, project: ProjectId) -> Result<u64, StoreError> {
        let mut select = Query::select();
        select.expr_as(bytes_of(project), "bytes");
        let row = self.reader.connection().query_one(&select).await.doing("add up pulled images")?;
        let bytes = row.map_or(Ok(0), |row| row.try_get("", "bytes")).doing("add up pulled images")?;
        from_integer::<u64>("bytes", bytes)
    }

    fn own_pulled(&self) -> Condition {
        Condition::all().add(Column::ServerId.eq(self.server_id().as_uuid()))
    }

    fn of_project(&self, project: ProjectId, image: &ImageRef) -> Condition {
        let own = self.own_pulled().add(Column::ProjectId.eq(project.as_uuid()));
        own.add(Column::Reference.eq(image.as_str()))
    }
}

impl TryFrom<Model> for PulledImage {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            server: row.server_id.into(),
            project: row.project_id.into(),
            image: ImageRef::recorded(&row.reference),
            id: row.image_id,
            bytes: from_integer("bytes", row.bytes)?,
            last_used_at: row.last_used_at,
        })
    }
}
