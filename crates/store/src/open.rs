//! The opening of a store: the file, the connections, the schema.

use emergent_types::ServerId;

use crate::{
    ServerIdentity, Store,
    connection::{self, DatabaseUrl},
    error::OpenError,
    installation, migration,
};

// === impl Store ===

impl Store {
    /// Opens the database as the server that it was made by; it is made where there is none (SQLite's file readable
    /// by its owner only), and brought to this release's schema.
    ///
    /// # Errors
    /// [`OpenError`] says which of these failed; a failed migration leaves the schema as it was.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, OpenError> {
        Self::open_as(url, None, &ServerIdentity::default()).await
    }

    /// The same, as one of several servers: `None` for the one that the database was made by.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::ServerInUse`] while another process is this server.
    pub async fn open_as(
        url: &DatabaseUrl,
        server: Option<ServerId>,
        identity: &ServerIdentity,
    ) -> Result<Self, OpenError> {
        let (reader, writer) = connection::open(url).await?;
        migration::run(&writer).await?;
        let installation = installation::load_or_make(&writer, server, identity).await?;
        Ok(Self { reader, writer, installation })
    }
}
