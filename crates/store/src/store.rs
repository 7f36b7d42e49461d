//! The handle of a store: its connections, and the identity under which it is open.

use emergent_types::ServerId;
use sea_orm::ConnectionTrait as _;
use uuid::Uuid;

use crate::{
    ProjectId, StoreError,
    connection::{Reader, Writer},
    error::Doing as _,
};

/// All rows. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) installation: Installation,
}

/// The identity that is made once, with the database, and then kept, and the process, which is new at each opening.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installation {
    pub(crate) server: ServerId,
    pub(crate) process: Uuid,
    pub(crate) default_project: ProjectId,
}

// === impl Store ===

impl Store {
    /// The id that this installation's engine resources carry.
    pub fn server_id(&self) -> ServerId {
        self.installation.server
    }

    /// The id that tells this process from others that claim to be the same server.
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
