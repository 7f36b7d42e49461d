//! What makes this installation itself: its server id and its default project.

use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_provider::ServerId;
use sea_orm::ConnectionTrait as _;
use uuid::Uuid;

use crate::{
    OpenError, ProjectId, ServerIdentity, Store, StoreError, connection::Writer, error::Doing as _, projects, servers,
};

const DEFAULT_PROJECT: &str = "default";

/// Made once, with the database, and then kept; the process, anew each time it is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installation {
    server: ServerId,
    process: Uuid,
    default_project: ProjectId,
}

/// Now, as precisely as every database keeps it.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

// === impl Installation ===

impl Installation {
    pub(crate) async fn load_or_make(
        writer: &Writer,
        server: Option<ServerId>,
        identity: &ServerIdentity,
    ) -> Result<Self, OpenError> {
        let process = Uuid::new_v4();
        let default_project = projects::find_or_make(writer.connection(), DEFAULT_PROJECT).await;
        let default_project = default_project.map_err(OpenError::Prepare)?;
        let server = servers::claim(writer, server, process, identity).await?;
        Ok(Self { server, process, default_project })
    }
}

// === impl Store ===

impl Store {
    /// The id that this installation's engine resources carry.
    pub fn server_id(&self) -> ServerId {
        self.installation.server
    }

    /// Tells this process from others that claim to be the same server.
    pub(crate) fn process_id(&self) -> Uuid {
        self.installation.process
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
