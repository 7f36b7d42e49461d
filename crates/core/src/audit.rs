//! What was done in workspaces and with them, and by whom: one row for each call and each step of a workspace's life.
//!
//! Whoever does something only puts a row into a queue; one task writes the rows, in batches, so that no request
//! waits for the database. The queue is bounded. Of a project that floods it rows are lost, counted, and the count is a
//! row of that project's.
//!
//! A part of this service that does something to a workspace says so with [`Audit::begin`] and [`Act::end`]. Who
//! asked for it is known by itself ([`Origin`]); work that is handed to a task of the service takes that along with
//! [`inherit`].

mod act;
mod ending;
mod operation;
mod origin;
mod queue;
mod settings;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use emergent_store::{AuditRow, ProjectId, Store};
use metrics::counter;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use act::Act;
pub use ending::Ending;
pub use origin::Origin;
pub(crate) use origin::inherit;
pub use settings::{ArgumentLevel, AuditConfig};

use self::{queue::Queue, writer::Writer};

/// Takes rows. Clones share the queue.
#[derive(Clone)]
pub struct Audit {
    queue: Arc<Queue>,
    lost: Lost,
    written: Arc<AtomicU64>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// How many rows of each project were lost and are not told of yet.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<BTreeMap<ProjectId, u64>>>);

// === impl Audit ===

impl Audit {
    /// Starts the task that writes.
    pub(crate) fn start(store: Store) -> Self {
        let (queue, written) = (Arc::<Queue>::default(), Arc::default());
        let (lost, closing, tasks) = (Lost::default(), CancellationToken::new(), TaskTracker::new());
        let writer = Writer::new(store, Arc::clone(&queue), lost.clone(), Arc::clone(&written), closing.clone());
        tasks.spawn(writer.run());
        Self { queue, lost, written, closing, tasks }
    }

    /// Queues a row. Never waits.
    pub fn record(&self, row: AuditRow) {
        if let Some(project) = self.queue.push(row) {
            counter!("emergent_audit_rows_total", "outcome" => "lost").increment(1);
            self.lost.add(project, 1);
        }
    }

    /// How many rows wait to be written.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many rows were written since this was last asked.
    pub(crate) fn take_written(&self) -> u64 {
        self.written.swap(0, Ordering::Relaxed)
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
