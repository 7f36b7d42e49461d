//! SQLite: one connection that writes, several that read.
//!
//! SQLite lets one connection write at a time. Writers that queue for our one connection wait their turn in memory;
//! writers with connections of their own would meet `SQLITE_BUSY`. Reads never wait for a write (WAL).

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, sqlx::Connection as _};

use crate::error::OpenError;

/// The time that a statement waits while another process, such as the command line, writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// The connection that writes. The file is made, with its directories, where there is none.
pub(super) async fn writer(path: &Path) -> Result<DatabaseConnection, OpenError> {
    make_private(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    connect(path, 1, false).await.map_err(OpenError::Connect)
}

/// The connections that read.
pub(crate) async fn reader(path: &Path) -> Result<DatabaseConnection, OpenError> {
    connect(path, READERS, true).await.map_err(OpenError::Connect)
}

async fn connect(path: &Path, connections: u32, read_only: bool) -> Result<DatabaseConnection, DbErr> {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite::memory:");
    options
        .min_connections(1)
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |options| {
            options
                .filename(&path)
                .in_memory(false)
                .shared_cache(false)
                .create_if_missing(false)
                .read_only(read_only)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
                .pragma("journal_mode", "WAL")
                // Each commit reaches the disk before it is answered. With less, a power cut takes back what was
                // promised last, while the sandboxes and snapshots that those rows account for stay.
                .pragma("synchronous", "FULL")
        })
        .map_sqlx_sqlite_pool_opts(|options| {
            // A commit that fails, as with a full disk, leaves its connection in the transaction. All that is written
            // on it afterwards would seem to succeed, be seen by nobody, and be lost with the process.
            options.after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        });
    Database::connect(options).await
}

/// Makes the file and its directories. SQLite gives the files beside it (`-wal`, `-shm`) the same permissions.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match create_private(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => restrict(path),
        Err(error) => Err(error),
    }
}

/// Makes a new file that its owner alone can read.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Removes the permissions of others on a file that was there already.
fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

    use super::*;

    #[tokio::test]
    async fn a_commit_is_on_the_disk_before_it_is_answered() {
        const FULL: i32 = 2;
        let directory = tempfile::tempdir().unwrap();
        let connection = writer(&directory.path().join("rows.db")).await.unwrap();
        let ask = Statement::from_string(DbBackend::Sqlite, "PRAGMA synchronous");
        let row = connection.query_one_raw(ask).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i32>(0).unwrap(), FULL);
    }
}
