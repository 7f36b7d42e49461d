//! The reasons for which the store could not do what it was asked.

use std::path::PathBuf;

use emergent_types::{ServerId, WorkspaceId};
use sea_orm::DbErr;

/// The reason for which a query failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or did not answer.
    #[error("the database failed to {action}")]
    Database {
        /// The action that the database was asked for, in words.
        action: &'static str,
        /// The database's error.
        #[source]
        source: DbErr,
    },
    /// Another server has taken the workspace over and drives it.
    #[error("another server drives the workspace {0} now")]
    Moved(WorkspaceId),
    /// Another process runs as this server.
    #[error("another process runs as this server; stop one of the two")]
    Usurped,
    /// The database did not answer a moment ago, and this server's lease may have run out since.
    #[error("the database does not answer, so that this server cannot tell whether its workspaces are still its own")]
    InDoubt,
    /// A row holds a value that this release does not know; a newer release has written it.
    #[error("column {column} holds {value:?}, which this release does not know")]
    UnknownValue {
        /// The column.
        column: &'static str,
        /// The value in the column.
        value: String,
    },
}

/// The reason for which a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory could not be made.
    #[error("the database file {} could not be made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// No connection.
    #[error("the database could not be opened")]
    Connect(#[source] DbErr),
    /// The address of a PostgreSQL database cannot be used.
    #[error("DATABASE_URL cannot be used: {reason}")]
    Address {
        /// The reason, without the address.
        reason: String,
    },
    /// No connection to PostgreSQL.
    #[error("{url} could not be connected to: {reason}; {advice}")]
    Unreachable {
        /// The database's address, without secrets.
        url: String,
        /// The driver's or the server's words.
        reason: String,
        /// The user's next step.
        advice: &'static str,
    },
    /// A migration failed; nothing of it is kept.
    #[error("the database could not be brought to this release's schema")]
    Migrate(#[source] DbErr),
    /// Another process runs as this server.
    #[error(
        "the server {server} is running already. If its data directory was copied, remove server-id from the copy; if \
         that server has just died elsewhere, start this one again in 30 s"
    )]
    ServerInUse {
        /// The server's id.
        server: ServerId,
    },
    /// The rows that every installation has could not be made.
    #[error("the database could not be prepared")]
    Prepare(#[source] StoreError),
}

/// Adds the action that the database was asked for to its error.
pub(crate) trait Doing<T> {
    fn doing(self, action: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, DbErr> {
    fn doing(self, action: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { action, source })
    }
}
