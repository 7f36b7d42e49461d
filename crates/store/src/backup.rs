//! Copies of a SQLite database that are whole even while a server writes.

use std::path::{Path, PathBuf};

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, Statement};

use crate::{
    DatabaseUrl, OpenError,
    connection::{Location, sqlite},
};

/// The reason for which no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has its own tool.
    #[error("a PostgreSQL database is copied with its own tool: pg_dump --format=custom --schema=kb --schema=core {0}")]
    NotSqlite(DatabaseUrl),
    /// There is something at the place of the copy, or it cannot be made there.
    #[error("{} cannot be made; name a file that is not there yet, in a directory that is", .path.display())]
    Destination {
        /// The path of the copy that was asked for.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite did not make the copy.
    #[error("the copy could not be made")]
    Copy(#[source] DbErr),
}

/// Copies the database into a file that is not there yet, readable by its owner only. Safe while a server runs on it.
///
/// # Errors
/// [`BackupError`]; a copy that was begun is removed.
pub async fn backup(url: &DatabaseUrl, to: &Path) -> Result<(), BackupError> {
    let Location::Sqlite(path) = &url.location else { return Err(BackupError::NotSqlite(url.clone())) };
    let destination = |source| BackupError::Destination { path: to.to_owned(), source };
    let to_text = to.to_str().ok_or_else(|| destination(std::io::ErrorKind::InvalidFilename.into()))?;
    let from = sqlite::reader(path).await?;
    // SQLite fills an empty file; that it was not there before is made sure of here.
    sqlite::create_private(to).map_err(destination)?;
    let copy = Statement::from_sql_and_values(DbBackend::Sqlite, "VACUUM INTO ?", [to_text.into()]);
    if let Err(error) = from.execute_raw(copy).await {
        // The reason is the copy's, whether its beginning could be removed or not.
        std::fs::remove_file(to).ok();
        return Err(BackupError::Copy(error));
    }
    Ok(())
}
