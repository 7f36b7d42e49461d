//! The identity of an installation: its server id and its default project.

use emergent_types::ServerId;
use sea_orm::{ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::Expr};
use uuid::Uuid;

use crate::{
    DestroyReason, OpenError, ServerIdentity, SessionEnd, StateKind, Store, StoreError,
    connection::Writer,
    entity::{leftover, mcp_server, server, session, snapshot, workspace},
    error::Doing as _,
    model::words::Word as _,
    projects, servers,
    store::Installation,
    time::now,
};

/// The name of the project that an installation begins with.
pub const DEFAULT_PROJECT: &str = "default";

/// Finds or makes the default project, and claims the identity of a server for a new process.
pub(crate) async fn load_or_make(
    writer: &Writer,
    server: Option<ServerId>,
    identity: &ServerIdentity,
) -> Result<Installation, OpenError> {
    let process = Uuid::new_v4();
    let default_project = projects::find_or_make(writer.connection(), DEFAULT_PROJECT).await;
    let default_project = default_project.map_err(OpenError::Prepare)?;
    let server = servers::claim(writer, server, process, identity).await?;
    Ok(Installation { server, process, default_project })
}

// === impl Store ===

impl Store {
    /// Makes the one server of a copied database a server of its own, with a new id. The objects in the engine stay
    /// the other server's: here, workspaces are recorded as destroyed, and snapshots, hosted MCP servers and leftovers
    /// are forgotten. Projects, tokens and the audit stay.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was changed then.
    pub async fn take_new_identity(self) -> Result<Self, StoreError> {
        const ACTION: &str = "become another server";
        let (old, new) = (self.server_id(), ServerId::generate());
        let transaction = self.writer.begin(ACTION).await?;
        if let Some(row) = server::Entity::find_by_id(old.as_uuid()).one(&transaction).await.doing(ACTION)? {
            let row = server::Model { id: new.as_uuid(), created_at: now(), ..row };
            server::Entity::insert(server::ActiveModel::from(row).reset_all())
                .exec_without_returning(&transaction)
                .await
                .doing(ACTION)?;
        }
        let destroyed = workspace::Entity::update_many()
            .filter(workspace::Column::State.ne(StateKind::Destroyed.as_str()))
            .col_expr(workspace::Column::State, Expr::value(StateKind::Destroyed.as_str()))
            .col_expr(workspace::Column::DestroyReason, Expr::value(DestroyReason::NewIdentity.as_str()))
            .col_expr(workspace::Column::DestroyedAt, Expr::value(now()))
            .col_expr(workspace::Column::Starting, Expr::value(false))
            .col_expr(workspace::Column::Idled, Expr::value(false))
            .col_expr(workspace::Column::ErrorReason, Expr::value(None::<String>))
            .col_expr(workspace::Column::ErrorMessage, Expr::value(None::<String>));
        destroyed.exec(&transaction).await.doing(ACTION)?;
        let moved = workspace::Entity::update_many().col_expr(workspace::Column::ServerId, Expr::value(new.as_uuid()));
        moved.exec(&transaction).await.doing(ACTION)?;
        let ended = session::Entity::update_many()
            .filter(session::Column::EndedAt.is_null())
            .col_expr(session::Column::EndedAt, Expr::value(now()))
            .col_expr(session::Column::EndReason, Expr::value(SessionEnd::Destroyed.word()));
        ended.exec(&transaction).await.doing(ACTION)?;
        snapshot::Entity::delete_many().exec(&transaction).await.doing(ACTION)?;
        mcp_server::Entity::delete_many().exec(&transaction).await.doing(ACTION)?;
        leftover::Entity::delete_many().exec(&transaction).await.doing(ACTION)?;
        server::Entity::delete_by_id(old.as_uuid()).exec(&transaction).await.doing(ACTION)?;
        transaction.commit().await.doing(ACTION)?;
        Ok(Self { installation: Installation { server: new, ..self.installation }, ..self })
    }
}
