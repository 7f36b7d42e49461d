//! The one task that writes rows.
//!
//! ```text
//!            first row          quarter of a second, or a full batch
//!   waiting ───────────► gathering ───────────► writing ──► waiting
//!                                                │   ▲
//!                                                └───┘ while the store fails; the queue fills up meanwhile
//! ```

use emergent_types::error_chain;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{SubsecRound as _, Utc};
use emergent_store::{Actor, AuditId, AuditKind, AuditOutcome, AuditRow, ProjectId, Store};
use metrics::counter;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Lost, queue::Queue};

/// The number of rows that are written in one statement.
const BATCH: usize = 500;
/// The time that a row waits for others to be written with.
const LINGER: Duration = Duration::from_millis(250);
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// The time for which a failing store is tried again once the service goes down.
const LAST_TRIES: Duration = Duration::from_secs(5);
/// The action of a row that says how many rows were lost.
const LOST: &str = "audit_lost";
/// Under which name it says so.
const LOST_ROWS: &str = "lost_rows";

pub(super) struct Writer {
    store: Store,
    queue: Arc<Queue>,
    lost: Lost,
    written: Arc<AtomicU64>,
    closing: CancellationToken,
    /// When a failing store is no longer tried.
    give_up_at: Option<Instant>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        store: Store,
        queue: Arc<Queue>,
        lost: Lost,
        written: Arc<AtomicU64>,
        closing: CancellationToken,
    ) -> Self {
        Self { store, queue, lost, written, closing, give_up_at: None }
    }

    /// Writes until the service goes down and the queue is empty.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.write(batch).await;
        }
        let last = self.lost_rows();
        if !last.is_empty() {
            self.write(last).await;
        }
    }

    /// The rows to write next; `None` when there will be none.
    async fn next_batch(&mut self) -> Option<Vec<AuditRow>> {
        let filled = tokio::select! {
            filled = self.queue.filled() => filled,
            () = self.closing.cancelled() => {
                self.queue.close();
                self.queue.len() > 0
            }
        };
        if !filled {
            return None;
        }
        if self.queue.len() < BATCH {
            tokio::select! {
                () = sleep(LINGER) => {}
                () = self.closing.cancelled() => self.queue.close(),
            }
        }
        let mut batch = self.queue.take(BATCH);
        batch.extend(self.lost_rows());
        Some(batch)
    }

    /// Writes a batch, as often as it takes.
    async fn write(&mut self, batch: Vec<AuditRow>) {
        let (mut backoff, mut failed) = (FIRST_BACKOFF, false);
        while !self.has_given_up() {
            let Err(error) = self.store.audit_append(&batch).await else {
                if failed {
                    tracing::info!("audit rows are recorded again");
                }
                self.written.fetch_add(batch.len() as u64, Ordering::Relaxed);
                counter!("emergent_audit_rows_total", "outcome" => "written").increment(batch.len() as u64);
                return;
            };
            counter!("emergent_audit_failures_total").increment(1);
            if !failed {
                tracing::warn!(reason = error_chain(&error), "audit rows could not be recorded; they wait");
            }
            failed = true;
            if self.closing.is_cancelled() {
                self.give_up_at.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                sleep(FIRST_BACKOFF).await;
            } else {
                tokio::select! {
                    () = sleep(backoff) => {}
                    () = self.closing.cancelled() => {}
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
        }
        for row in &batch {
            // A row that tells of others stands for them.
            let rows = row.arguments.get(LOST_ROWS).and_then(Value::as_u64).unwrap_or(1);
            counter!("emergent_audit_rows_total", "outcome" => "lost").increment(1);
            self.lost.add(row.project, rows);
        }
    }

    fn has_given_up(&self) -> bool {
        self.give_up_at.is_some_and(|at| Instant::now() >= at)
    }

    /// A row for each project of which rows were lost since the last time.
    fn lost_rows(&self) -> Vec<AuditRow> {
        let lost = self.lost.take();
        for (project, lost) in &lost {
            tracing::warn!(%project, lost, "audit rows were lost: more was done than could be recorded");
        }
        lost.into_iter().map(|(project, lost)| lost_row(project, lost)).collect()
    }
}

/// The row that tells of lost ones.
pub(super) fn lost_row(project: ProjectId, lost: u64) -> AuditRow {
    AuditRow {
        id: AuditId::generate(),
        project,
        workspace: None,
        at: Utc::now().trunc_subsecs(6),
        actor: Actor::Server,
        session: None,
        kind: AuditKind::Lifecycle,
        action: LOST.to_owned(),
        outcome: AuditOutcome::Failed,
        problem: None,
        duration_ms: 0,
        arguments: Map::from_iter([(LOST_ROWS.to_owned(), Value::from(lost))]),
        bytes_in: 0,
        bytes_out: 0,
        request_id: None,
    }
}
