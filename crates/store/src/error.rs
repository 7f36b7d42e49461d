//! Why the store could not do what it was asked.

use std::path::PathBuf;

use sea_orm::DbErr;

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or did not answer.
    #[error("the database failed to {action}")]
    Database {
        /// What was asked, in words.
        action: &'static str,
        /// The database's error.
        #[source]
        source: DbErr,
    },
    /// A row holds a value that this release does not know; a newer release has written it.
    #[error("column {column} holds {value:?}, which this release does not know")]
    UnknownValue {
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory could not be made.
    #[error("the database file {} could not be made", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// No connection.
    #[error("the database could not be opened")]
    Connect(#[source] DbErr),
    /// A migration failed; nothing of it is kept.
    #[error("the database could not be brought to this release's schema")]
    Migrate(#[source] DbErr),
    /// The rows that every installation has could not be made.
    #[error("the database could not be prepared")]
    Prepare(#[source] StoreError),
}

/// Names what was asked of the database when it fails.
pub(crate) trait Doing<T> {
    fn doing(self, action: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, DbErr> {
    fn doing(self, action: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { action, source })
    }
}
