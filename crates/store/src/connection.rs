//! Connections to the database: those that write, and those that only read.
//!
//! The needs of SQLite are met in [`sqlite`], those of PostgreSQL in [`postgres`]; the queries are the same on both. A
//! decision that one writer alone must take, on all servers together, begins with [`Writer::begin_alone`].

pub(crate) mod postgres;
pub(crate) mod sqlite;
mod url;

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _,
};

pub(crate) use self::url::Location;
pub use self::url::{DatabaseUrl, InvalidDatabaseUrl};
use crate::error::{Doing as _, OpenError, StoreError};

/// Sees rows. On SQLite it cannot change them.
#[derive(Clone)]
pub(crate) struct Reader(DatabaseConnection);

/// Changes rows.
#[derive(Clone)]
pub(crate) struct Writer(DatabaseConnection);

/// The decisions that one transaction at a time takes, whichever server it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Alone {
    /// The schema.
    Schema = 1,
    /// The rows that an installation has once: its first server and token, its default project.
    Installation = 2,
    /// The places that are left, the idempotency keys and the names of workspaces.
    Places = 3,
}

/// Opens the database; makes SQLite's file where it is missing.
pub(crate) async fn open(url: &DatabaseUrl) -> Result<(Reader, Writer), OpenError> {
    match &url.location {
        Location::Sqlite(path) => {
            let writer = sqlite::writer(path).await?;
            Ok((Reader(sqlite::reader(path).await?), Writer(writer)))
        }
        Location::Postgres(address) => {
            let pool = postgres::pool(address).await?;
            Ok((Reader(pool.clone()), Writer(pool)))
        }
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.0
    }
}

// === impl Writer ===

impl Writer {
    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.0
    }

    /// Begins a transaction. SQLite's holds the right to write from its beginning, so that what it reads stays true.
    pub(crate) async fn begin(&self, action: &'static str) -> Result<DatabaseTransaction, StoreError> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.0.begin_with_options(immediate).await.doing(action)
    }

    /// Begins a transaction that no other of its kind runs beside, so that what it reads stays true. PostgreSQL shows
    /// each statement what was committed before *it* began: the lock comes first, in a statement of its own.
    pub(crate) async fn begin_alone(
        &self,
        kind: Alone,
        action: &'static str,
    ) -> Result<DatabaseTransaction, StoreError> {
        let transaction = self.begin(action).await?;
        if transaction.get_database_backend() == DbBackend::Postgres {
            let lock = "SELECT pg_advisory_xact_lock($1)";
            let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [kind.key().into()]);
            transaction.execute_raw(lock).await.doing(action)?;
        }
        Ok(transaction)
    }
}

// === impl Alone ===

impl Alone {
    /// The number of its lock in PostgreSQL, where others may have locks in the same database.
    fn key(self) -> i64 {
        const OURS: i64 = i64::from_be_bytes(*b"emergent");
        OURS + self as i64
    }
}
