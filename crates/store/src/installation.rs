//! What makes this installation itself: its server id and its default project.

use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_provider::ServerId;
use sea_orm::{ActiveValue::Set, ConnectionTrait as _, EntityTrait as _, QueryOrder as _};

use crate::{ProjectId, Store, StoreError, connection::Writer, entity::server, error::Doing as _, projects};

const DEFAULT_PROJECT: &str = "default";

/// Made once, with the database, and then kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installation {
    server: ServerId,
    default_project: ProjectId,
}

/// Now, as precisely as every database keeps it.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

// === impl Installation ===

impl Installation {
    pub(crate) async fn load_or_make(writer: &Writer) -> Result<Self, StoreError> {
        let transaction = writer.begin("begin preparing").await?;
        let server = server::Entity::find()
            .order_by_asc(server::Column::CreatedAt)
            .one(&transaction)
            .await
            .doing("find itself")?;
        let server = match server {
            Some(server) => server.id,
            None => {
                let id = ServerId::generate().as_uuid();
                let row = server::ActiveModel { id: Set(id), created_at: Set(now()) };
                server::Entity::insert(row).exec_without_returning(&transaction).await.doing("record the server")?;
                id
            }
        };
        let default_project = projects::find_or_make(&transaction, DEFAULT_PROJECT).await?;
        transaction.commit().await.doing("finish preparing")?;
        Ok(Self { server: server.into(), default_project })
    }
}

// === impl Store ===

impl Store {
    /// The id that this installation's engine resources carry.
    pub fn server_id(&self) -> ServerId {
        self.installation.server
    }

    /// The project that rows belong to unless a token says otherwise, and that the server's administrators are in.
    pub fn default_project(&self) -> ProjectId {
        self.installation.default_project
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let reader = self.reader.connection();
        reader.execute_unprepared("SELECT 1 FROM servers").await.doing("answer")?;
        Ok(())
    }
}
