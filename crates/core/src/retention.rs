//! Deletes what is older than it has to be kept: in small pieces, so that nothing waits for it for long.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use emergent_store::StoreError;
use tokio::time::sleep;

use crate::inner::{Core, chain};

/// How many rows are deleted in one statement.
const PIECE: u64 = 500;
/// How long others may write between two of them.
const PAUSE: Duration = Duration::from_millis(20);

// === impl Core ===

impl Core {
    /// Deletes old rows of the audit and old samples.
    pub(crate) async fn forget_old(&self) {
        let audit = self.config.audit;
        self.forget("audit rows", audit.retention, |before| self.store.audit_purge(before, PIECE)).await;
        self.forget("samples of use", audit.usage_retention, |before| self.store.usage_purge(before, PIECE)).await;
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
                    tracing::warn!(reason = chain(&error), "old {what} could not be deleted");
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
