//! Deletes what is older than it has to be kept, or more than is kept: in small pieces, so that nothing waits for it
//! for long.

use emergent_types::error_chain;
use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use emergent_store::StoreError;
use tokio::time::sleep;

use crate::orchestrator::Orchestrator;

/// How many rows are deleted in one statement.
const PIECE: u64 = 500;
/// How long others may write between two of them.
const PAUSE: Duration = Duration::from_millis(20);

// === impl Orchestrator ===

impl Orchestrator {
    /// Deletes old rows of the audit and old samples.
    pub(crate) async fn forget_old(&self) {
        let audit = self.config.audit;
        self.forget("audit rows", audit.retention, |before| self.store.audit_purge(before, PIECE)).await;
        self.forget_beyond(audit.most_rows).await;
        self.forget("samples of use", audit.usage_retention, |before| self.store.usage_purge(before, PIECE)).await;
    }

    /// Deletes the oldest rows of the audit of every project that has more than so many.
    pub(crate) async fn forget_beyond(&self, most: u64) {
        let counts = match self.store.audit_counts(most).await {
            Ok(counts) => counts,
            Err(error) => return tracing::warn!(reason = error_chain(&error), "audit rows could not be counted"),
        };
        for (project, count) in counts {
            let mut left = count - most;
            while left > 0 && !self.is_going_down() {
                match self.store.audit_purge_oldest(project, left.min(PIECE)).await {
                    Ok(0) => break,
                    Ok(piece) => left = left.saturating_sub(piece),
                    Err(error) => {
                        tracing::warn!(%project, reason = error_chain(&error), "audit rows could not be deleted");
                        break;
                    }
                }
                sleep(PAUSE).await;
            }
            tracing::info!(%project, deleted = count - most - left, "deleted the oldest audit rows of a project that had too many");
        }
    }

    async fn forget<F: Future<Output = Result<u64, StoreError>>>(
        &self,
        what: &'static str,
        keep: Duration,
        delete: impl Fn(DateTime<Utc>) -> F,
    ) {
        let keep = chrono::Duration::from_std(keep).unwrap_or(chrono::Duration::MAX);
        let Some(before) = Utc::now().checked_sub_signed(keep) else { return };
        let mut deleted = 0;
        while !self.is_going_down() {
            match delete(before).await {
                Ok(0) => break,
                Ok(piece) => deleted += piece,
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "old {what} could not be deleted");
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        if deleted > 0 {
            tracing::info!(deleted, "deleted old {what}");
        }
    }
}
