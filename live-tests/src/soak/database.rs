//! The PostgreSQL that one of the servers keeps its rows in: stopped, started again.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context as _;
use emergent_test_postgres::Cluster;
use tokio::task::block_in_place;

/// Not on the run's small disk: a database whose disk is full is its administrator's to mend.
const FOLDER: &str = "/run";

/// A cluster with one database.
pub struct Rows {
    cluster: Cluster,
    /// The database's address.
    pub address: String,
}

// === impl Rows ===

impl Rows {
    /// Makes a cluster and a database.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let cluster = block_in_place(|| Cluster::start_in(Path::new(FOLDER)))?;
        let address = cluster.database().await?;
        Ok(Self { cluster, address })
    }

    /// Ends it, with every connection.
    ///
    /// # Errors
    /// When its keeper is gone.
    pub fn stop(&self) -> anyhow::Result<()> {
        block_in_place(|| self.cluster.stop()).context("stopping PostgreSQL")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When its keeper is gone.
    pub fn start_again(&self) -> anyhow::Result<()> {
        block_in_place(|| self.cluster.start_again()).context("starting PostgreSQL again")
    }

    /// The process ids of its keeper and of the server; others are below them.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pids(&self) -> anyhow::Result<BTreeSet<u32>> {
        Ok(self.cluster.pids()?.into())
    }
}
