//! Deletes what is older than it has to be kept, or more than is kept: in small pieces, so that nothing waits for it
//! for long.

use std::{future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use emergent_store::{Store, StoreError};
use emergent_types::error_chain;
use tokio::time::{interval, sleep};

use crate::{
    audit::Audit,
    config::CoreConfig,
    foundation::Foundation,
    placement::{images::Images, providers::Providers},
    tasks::Tasks,
};

/// The number of rows that are deleted in one statement.
const PIECE: u64 = 500;
/// The time for which others may write between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// The time for which data that only an older release needed is kept, for servers of that release that start again
/// meanwhile.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of rows of destroyed workspaces that are removed at once.
const FORGET: u64 = 200;
/// The interval between two checks of how many audit rows were written.
const AUDIT: Duration = Duration::from_secs(60);
/// The number of written audit rows from which on the oldest rows are deleted between two clean-ups.
const MANY: u64 = 20_000;

/// Deletes old rows and unused data at every interval.
pub(crate) struct Retention {
    store: Store,
    providers: Arc<Providers>,
    images: Arc<Images>,
    audit: Audit,
    tasks: Tasks,
    config: Arc<CoreConfig>,
}

// === impl Retention ===

impl Retention {
    pub(crate) fn new(base: &Foundation) -> Self {
        Self {
            store: base.store.clone(),
            providers: Arc::clone(&base.providers),
            images: Arc::clone(&base.images),
            audit: base.audit.clone(),
            tasks: base.tasks.clone(),
            config: Arc::clone(&base.config),
        }
    }

    /// Removes old rows, unused images and unused data of the engines at every interval, for the life of the service.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        let mut ticks = interval(self.config.cleanup_interval);
        while self.tasks.goes_on(&mut ticks).await {
            if self.config.enabled {
                self.forget_destroyed().await;
                self.images.remove_unused(&self.providers, self.config.pulled_image_retention).await;
                self.tidy_engines().await;
                self.forget_old().await;
            }
        }
    }

    /// Deletes the oldest audit rows of projects that have too many, between two clean-ups, once many were written; for
    /// the life of the service.
    pub(crate) async fn keep_audit_short(self: Arc<Self>) {
        let mut ticks = interval(AUDIT);
        let mut written = 0;
        while self.tasks.goes_on(&mut ticks).await {
            written += self.audit.take_written();
            if written >= MANY {
                written = 0;
                self.forget_beyond(self.config.audit.most_rows).await;
            }
        }
    }

    async fn tidy_engines(&self) {
        for registered in self.providers.iter() {
            let kind = registered.provider.kind();
            match registered.provider.tidy(UNUSED).await {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => tracing::info!(provider = %kind, ?removed, "removed what nobody uses any more"),
                Err(error) => {
                    tracing::debug!(provider = %kind, reason = error_chain(&error), "the engine was not tidied")
                }
            }
        }
    }

    /// Removes the rows of workspaces that were destroyed long ago, a few at a time so that no other query waits long.
    async fn forget_destroyed(&self) {
        let Some(before) = Utc::now().checked_sub_signed(self.config.destroyed_retention) else { return };
        let mut forgotten = 0;
        loop {
            match self.store.workspaces_forget(before, FORGET).await {
                Ok(gone) => {
                    forgotten += gone;
                    if gone < FORGET || self.tasks.is_going_down() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "rows of destroyed workspaces could not be removed");
                    break;
                }
            }
        }
        if forgotten > 0 {
            tracing::info!(rows = forgotten, "removed the rows of workspaces that were destroyed long ago");
        }
    }

    /// Deletes old rows of the audit and old samples.
    async fn forget_old(&self) {
        let audit = self.config.audit;
        self.forget("audit rows", audit.retention, |before| self.store.audit_purge(before, PIECE)).await;
        self.forget_beyond(audit.most_rows).await;
        self.forget("samples of use", audit.usage_retention, |before| self.store.usage_purge(before, PIECE)).await;
    }

    /// Deletes the oldest rows of the audit of every project that has more than so many.
    async fn forget_beyond(&self, most: u64) {
        let counts = match self.store.audit_counts(most).await {
            Ok(counts) => counts,
            Err(error) => return tracing::warn!(reason = error_chain(&error), "audit rows could not be counted"),
        };
        for (project, count) in counts {
            let mut left = count - most;
            while left > 0 && !self.tasks.is_going_down() {
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
        while !self.tasks.is_going_down() {
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
