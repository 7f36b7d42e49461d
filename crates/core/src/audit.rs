//! The audit: one row for each call and for each step of a workspace's life, with the action, the actor and the
//! outcome.
//!
//! An action only puts its row into a queue; one task writes the rows, in batches, so that no request waits for the
//! database. The queue is bounded. Where a project floods the queue, rows of that project are lost; the number of lost
//! rows is recorded as a row of the project.
//!
//! Code of this service that changes a workspace records the step with [`Audit::begin`] and [`AuditSpan::end`]. The
//! actor comes from the task-local [`Origin`]; work that moves to another task of the service takes the origin along
//! with [`inherit`].

mod end;
mod origin;
mod queue;
mod settings;
mod span;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use emergent_store::{AuditRow, ProjectId, Store};
use metrics::counter;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use end::AuditEnd;
pub use origin::Origin;
pub(crate) use origin::inherit;
pub use settings::{ArgumentLevel, AuditConfig};
pub(crate) use span::AuditSpan;

use self::{queue::Queue, writer::Writer};

/// The entrance of the audit: takes rows into the queue. Clones share the queue.
#[derive(Clone)]
pub struct Audit {
    queue: Arc<Queue>,
    lost: Lost,
    written: Arc<AtomicU64>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The number of lost rows of each project that no row reports yet.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<BTreeMap<ProjectId, u64>>>);

// === impl Audit ===

impl Audit {
    /// Starts the task that writes the rows.
    pub(crate) fn start(store: Store) -> Self {
        let (queue, written) = (Arc::<Queue>::default(), Arc::default());
        let (lost, closing, tasks) = (Lost::default(), CancellationToken::new(), TaskTracker::new());
        let writer = Writer::new(store, Arc::clone(&queue), lost.clone(), Arc::clone(&written), closing.clone());
        tasks.spawn(writer.run());
        Self { queue, lost, written, closing, tasks }
    }

    /// Queues a row; never waits.
    pub fn record(&self, row: AuditRow) {
        if let Some(project) = self.queue.push(row) {
            counter!("emergent_audit_rows_total", "outcome" => "lost").increment(1);
            self.lost.add(project, 1);
        }
    }

    /// Returns how many rows wait to be written.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many rows were written since the last call of this function.
    pub(crate) fn take_written(&self) -> u64 {
        self.written.swap(0, Ordering::Relaxed)
    }

    /// Writes the queued rows and ends the task. Rows that come later are lost.
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
        *self.0.lock().entry(project).or_default() += rows;
    }

    fn take(&self) -> BTreeMap<ProjectId, u64> {
        std::mem::take(&mut self.0.lock())
    }
}
