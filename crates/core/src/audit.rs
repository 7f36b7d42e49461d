//! What was done in workspaces and with them, and by whom: one row for each call and each step of a workspace's life.
//!
//! Whoever does something only puts a row into a queue; one task writes the rows, in batches, so that no request
//! waits for the database. The queue is bounded. Rows that find it full are lost, counted, and the count is a row.
//!
//! A part of this service that does something to a workspace says so with [`Audit::begin`] and [`Act::end`]. Who
//! asked for it is known by itself ([`Origin`]); work that is handed to a task of the service takes that along with
//! [`inherit`].

mod act;
mod ending;
mod operation;
mod origin;
mod settings;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use emergent_store::{AuditRow, ProjectId, Store};
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use act::Act;
pub use ending::Ending;
pub use origin::Origin;
pub(crate) use origin::inherit;
pub use settings::{ArgumentLevel, AuditConfig};

use self::writer::Writer;

/// How many rows wait to be written, at most. They take a few megabytes.
const QUEUE: usize = 8_192;

/// Takes rows. Clones share the queue.
#[derive(Clone)]
pub struct Audit {
    rows: mpsc::Sender<AuditRow>,
    lost: Lost,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// How many rows of each project found the queue full and are not told of yet.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<BTreeMap<ProjectId, u64>>>);

// === impl Audit ===

impl Audit {
    /// Starts the task that writes.
    pub(crate) fn start(store: Store) -> Self {
        let (rows, queue) = mpsc::channel(QUEUE);
        let (lost, closing, tasks) = (Lost::default(), CancellationToken::new(), TaskTracker::new());
        tasks.spawn(Writer::new(store, queue, lost.clone(), closing.clone()).run());
        Self { rows, lost, closing, tasks }
    }

    /// Queues a row. Never waits.
    pub fn record(&self, row: AuditRow) {
        if let Err(refused) = self.rows.try_send(row) {
            counter!("emergent_audit_rows_total", "outcome" => "lost").increment(1);
            self.lost.add(refused.into_inner().project, 1);
        }
    }

    /// How many rows wait to be written.
    pub fn waiting(&self) -> usize {
        self.rows.max_capacity() - self.rows.capacity()
    }

    /// Writes what is queued and ends the task. Rows that come later are lost.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let lost: u64 = self.lost.take().into_values().sum();
        if lost > 0 {
            tracing::error!(lost, "audit rows were lost because the store failed until the end");
        }
    }
}

// === impl Lost ===

impl Lost {
    fn add(&self, project: ProjectId, rows: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(project).or_default() += rows;
    }

    fn take(&self) -> BTreeMap<ProjectId, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
