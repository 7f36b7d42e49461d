//! The state that all parts of a run share: the servers, the engine, the faults, and the numbers and findings.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use parking_lot::Mutex as SyncMutex;
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use super::{database::Rows, fault_log::FaultLog, report::Report};
use crate::{
    Api, Engine, Runtime, Server, ServerOptions,
    api::{SNAPSHOTS, WORKSPACES},
};

/// `WORKSPACE_MAX_CONCURRENT` of each server: less than its workers would have, so that they reach the limit.
pub const LIMIT: usize = 6;
/// The number of sandboxes that each server keeps ready.
const POOL: usize = 1;

/// The state that all parts of a run share.
pub struct Testbed {
    /// The run's seed.
    pub seed: u64,
    /// The time at which the load ends.
    pub deadline: Instant,
    /// The engine, as its administrator sees it.
    pub engine: Engine,
    /// The database of the servers that keep their rows in no file.
    pub rows: Rows,
    /// The servers under test.
    pub subjects: Vec<Subject>,
    /// The faults that strike more than one workspace.
    pub fault_log: FaultLog,
    /// The numbers and the findings.
    pub report: Report,
}

/// The place in which a server keeps its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a file of its own.
    Sqlite,
    /// In [`Testbed::rows`].
    Postgres,
}

/// A server under test.
pub struct Subject {
    /// The server's name in findings: the runtime of its workspaces, where there is one server for each.
    pub name: &'static str,
    /// The place of the server's rows.
    pub store: Store,
    /// The server's process.
    pub server: Mutex<Server>,
    /// A client with the server's first token.
    pub api: Api,
    /// The id that the server's labels carry.
    pub id: String,
    /// Workspaces that may count towards the server's limit.
    pub census: Census,
    /// The changes of files and repositories that the server has been asked for and has not answered.
    pub changes: Changes,
}

/// A count of changes under way.
#[derive(Debug, Default)]
pub struct Changes(watch::Sender<usize>);

/// A change under way: it counts until this is dropped.
#[derive(Debug)]
pub struct UnderWay(watch::Sender<usize>);

/// Workspaces that may be creating, ready or paused, over time.
#[derive(Debug, Default)]
pub struct Census(SyncMutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    active: BTreeSet<String>,
    /// The number of workspaces after each change, with its time.
    history: Vec<(Instant, usize)>,
}

// === impl Testbed ===

impl Testbed {
    /// Whether workers go on.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.deadline && !self.report.has_enough()
    }

    /// The share of the load that has passed.
    pub fn progress(&self, length: Duration) -> f64 {
        1.0 - self.deadline.saturating_duration_since(Instant::now()).as_secs_f64() / length.as_secs_f64()
    }
}

// === impl Subject ===

impl Subject {
    /// Starts a server.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(name: &'static str, runtime: Runtime, store: Store, rows: &Rows) -> anyhow::Result<Self> {
        let mut options = ServerOptions::on(runtime)
            .with("WORKSPACE_MAX_CONCURRENT", LIMIT.to_string())
            .with("WORKSPACE_WARM_POOL_SIZE", POOL.to_string())
            .with("WORKSPACE_CLEANUP_INTERVAL_MIN", "1")
            .with("EMERGENT_LOG", "info,emergent_core=debug")
            .with("WORKSPACE_DEFAULT_CPU", "1")
            .with("WORKSPACE_DEFAULT_MEMORY", "256M");
        if store == Store::Postgres {
            options = options.with("DATABASE_URL", rows.address.as_str());
        }
        let server = Server::start(options).await?;
        let (api, id) = (server.api.clone(), server.id().to_owned());
        Ok(Self {
            name,
            store,
            server: Mutex::new(server),
            api,
            id,
            census: Census::default(),
            changes: Changes::default(),
        })
    }

    /// The workspaces that the API lists, destroyed ones left out.
    ///
    /// # Errors
    /// When it does not list them.
    pub async fn workspaces(&self) -> anyhow::Result<Vec<Value>> {
        self.api.list(WORKSPACES).await
    }

    /// The snapshots that the API lists.
    ///
    /// # Errors
    /// When it does not list them.
    pub async fn snapshots(&self) -> anyhow::Result<Vec<Value>> {
        self.api.list(SNAPSHOTS).await
    }

    /// Returns the state of the server's warm pool.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn pool(&self) -> anyhow::Result<Value> {
        Ok(self.api.get("/api/v1/agent/warm-pool").await?.success()?["items"][0].take())
    }
}

// === impl Changes ===

impl Changes {
    /// Counts a change that is about to be asked for.
    pub fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.0.clone())
    }

    /// Waits until a change is under way.
    pub async fn some(&self) {
        // The sender is this one.
        drop(self.0.subscribe().wait_for(|count| *count > 0).await);
    }
}

// === impl UnderWay ===

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

// === impl Census ===

impl Census {
    /// Records that a workspace may count, or that it certainly does not.
    pub fn set(&self, id: &str, may_be_active: bool) {
        let mut counted = self.0.lock();
        let changed = if may_be_active { counted.active.insert(id.to_owned()) } else { counted.active.remove(id) };
        if changed {
            let now = counted.active.len();
            counted.history.push((Instant::now(), now));
        }
    }

    /// Returns the workspaces that may count now: by their ids, and by their marks while they are made.
    pub fn active(&self) -> BTreeSet<String> {
        self.0.lock().active.clone()
    }

    /// Returns the largest number of workspaces that may have counted at a time since `from`.
    pub fn most_since(&self, from: Instant) -> usize {
        let counted = self.0.lock();
        let first = counted.history.partition_point(|(when, _)| *when < from).saturating_sub(1);
        counted.history.iter().skip(first).map(|(_, count)| *count).max().unwrap_or(0)
    }
}
