//! A PostgreSQL for tests: started from Debian's package when a test program first asks, with a database for each
//! test, and gone with the program however it ends.
//!
//! The cluster is kept by a shell that waits for the end of its standard input. The other end of that pipe is this
//! process's: when it ends, even by SIGKILL, the shell ends PostgreSQL and removes its files.

mod cluster;

use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, postgres::PgConnectOptions};
use uuid::Uuid;

pub use cluster::Cluster;

static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// The address of a new, empty database, on a cluster that the tests of this program share.
///
/// # Errors
/// When PostgreSQL is not installed or does not start: the message says what to do.
pub async fn database() -> anyhow::Result<String> {
    let cluster = SHARED.get_or_init(|| Cluster::start().map_err(|error| format!("{error:#}")));
    cluster.as_ref().map_err(|error| anyhow!("{error}"))?.database().await
}

// === impl Cluster ===

impl Cluster {
    /// The address of a new, empty database.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = self.address("postgres").parse::<PgConnectOptions>()?.connect().await?;
        let made = connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await;
        made.context("making a database for a test")?;
        connection.close().await?;
        Ok(self.address(&name))
    }
}
