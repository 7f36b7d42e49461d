//! Connections to the database: one that writes, several that read.
//!
//! SQLite lets one connection write at a time. Writers that queue for our one connection wait their turn in memory;
//! writers with connections of their own would meet `SQLITE_BUSY`. Reads never wait for a write (WAL).

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait as _;

use crate::{
    error::{Doing as _, OpenError, StoreError},
    migration::Migrator,
};

/// How long a statement waits while another process, such as the command line, writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// Sees rows and cannot change them.
#[derive(Clone)]
pub(crate) struct Reader(DatabaseConnection);

/// Changes rows.
#[derive(Clone)]
pub(crate) struct Writer(DatabaseConnection);

// === impl Reader ===

impl Reader {
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        connect(path, READERS, true).await.map(Self).map_err(OpenError::Connect)
    }

    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.0
    }
}

// === impl Writer ===

impl Writer {
    /// Opens the file, made with its directories where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        make_private(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        connect(path, 1, false).await.map(Self).map_err(OpenError::Connect)
    }

    pub(crate) async fn migrate(&self) -> Result<(), OpenError> {
        Migrator::up(&self.0, None).await.map_err(OpenError::Migrate)
    }

    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.0
    }

    /// Begins a transaction that holds the right to write from its beginning, so that what it reads stays true.
    pub(crate) async fn begin(&self, action: &'static str) -> Result<DatabaseTransaction, StoreError> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.0.begin_with_options(immediate).await.doing(action)
    }
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
                .pragma("synchronous", "NORMAL")
        });
    Database::connect(options).await
}

/// Makes the file and its directories. SQLite gives the files beside it (`-wal`, `-shm`) the same permissions.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => restrict(path),
        Err(error) => Err(error),
    }
}

/// Takes away what others may do with a file that an older hand has made.
fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
