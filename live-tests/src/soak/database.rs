//! The PostgreSQL that one of the servers keeps its rows in: stopped, started again.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context as _;
use emergent_test_postgres::Cluster;
use tokio::task::block_in_place;

/// The folder of the database, outside the run's small disk: a database whose disk is full needs its administrator.
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

    /// Ends the cluster, with every connection.
    ///
    /// # Errors
    /// When the cluster's keeper is gone.
    pub fn stop(&self) -> anyhow::Result<()> {
        block_in_place(|| self.cluster.stop()).context("stopping PostgreSQL")
    }

    /// Starts the cluster again.
    ///
    /// # Errors
    /// When the cluster's keeper is gone.
    pub fn start_again(&self) -> anyhow::Result<()> {
        block_in_place(|| self.cluster.start_again()).context("starting PostgreSQL again")
    }

    /// The process ids of the cluster's keeper and of the server; others are below them.
    ///
    /// # Errors
    /// When the cluster does not run.
    pub fn pids(&self) -> anyhow::Result<BTreeSet<u32>> {
        Ok(self.cluster.pids()?.into())
    }
}
