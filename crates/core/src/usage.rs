//! Samples of the resources that workspaces use, and the watch over their disks.
//!
//! The service asks every guest at every interval, many at a time, and waits only a short time for each: a guest that
//! does not answer delays no other, and is asked after the others the next time.

mod sanitize;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound as _, Utc};
use emergent_guest_proto::Usage;
use emergent_store::{ProjectId, Store, UsageSample, UsageTotals};
use emergent_types::{WorkspaceId, error_chain};
use futures::{StreamExt as _, stream};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::sanitize::{Before, sanitize_sample};
use crate::{
    audit::{Audit, AuditEnd},
    foundation::Foundation,
    placement::providers::Providers,
    tasks::Tasks,
    telemetry,
    workspace::{
        entry::Entry,
        lookup::{Lookup, LookupError},
        registry::Registry,
    },
};

/// The number of guests that are asked at once.
const TOGETHER: usize = 64;
/// The time that a guest may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The number of samples of a workspace between two counts of its bytes outside `/workspace`: a count costs the engine
/// more than a request costs a guest.
const OUTSIDE_EVERY: u32 = 5;
/// The time that the engine may take to count those bytes.
const COUNT: Duration = Duration::from_secs(5);
/// The number of samples that are written in one statement.
const BATCH: usize = 500;
/// The greatest number of samples that a history shows.
const MOST_SAMPLES: u64 = 10_000;

/// The resource usage of a workspace over a span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageHistory {
    /// The samples, newest first; the newest ones where there are more than a history shows.
    pub samples: Vec<UsageSample>,
    /// The totals of all samples of the span.
    pub totals: UsageTotals,
}

/// The facts about a workspace that the sampler keeps from one round to the next.
#[derive(Default)]
struct LastSample {
    before: Option<(Before, Instant)>,
    /// The bytes that the workspace keeps outside `/workspace`, and the time of that count.
    outside: Option<(u64, Instant)>,
    is_silent: bool,
    is_over: Option<bool>,
}

/// Samples the usage of all workspaces, and returns what was sampled.
pub(crate) struct UsageSampler {
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    lookup: Lookup,
    audit: Audit,
    tasks: Tasks,
    /// The time between two samples of a workspace.
    interval: Duration,
}

// === impl UsageSampler ===

impl UsageSampler {
    pub(crate) fn new(base: &Foundation) -> Self {
        Self {
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            providers: Arc::clone(&base.providers),
            lookup: base.lookup.clone(),
            audit: base.audit.clone(),
            tasks: base.tasks.clone(),
            interval: base.config.audit.usage_interval,
        }
    }

    /// Samples the usage of all workspaces, for the life of the service.
    pub(crate) async fn keep_sampling(self: Arc<Self>) {
        let mut known = HashMap::new();
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.tasks.goes_on(&mut ticks).await {
            self.sample_all(&mut known).await;
        }
    }

    async fn sample_all(&self, known: &mut HashMap<WorkspaceId, LastSample>) {
        let mut entries = self.registry.all();
        let ids = entries.iter().map(|entry| entry.id).collect::<std::collections::HashSet<_>>();
        known.retain(|id, _| ids.contains(id));
        entries.retain(|entry| entry.ready_guest().is_some());
        entries.sort_by_key(|entry| known.get(&entry.id).is_some_and(|known| known.is_silent));
        let ask_one = |entry: Arc<Entry>| async move { (ask(&entry).await, entry) };
        let asked = stream::iter(entries).map(ask_one).buffer_unordered(TOGETHER);
        let mut answers = std::pin::pin!(asked);
        let mut samples = Vec::new();
        while let Some((said, entry)) = answers.next().await {
            let known = known.entry(entry.id).or_default();
            known.is_silent = said.is_none();
            telemetry::sampled(said.is_some());
            if let Some(said) = said {
                let mut sample = self.sample(&entry, known, &said);
                let outside = self.outside(&entry, known).await;
                sample.disk_bytes = sample.disk_bytes.map(|bytes| bytes.saturating_add(outside));
                self.watch_disk(&entry, known, sample.disk_bytes).await;
                samples.push(sample);
            }
        }
        telemetry::over_disk_limit(known.values().filter(|known| known.is_over == Some(true)).count());
        for batch in samples.chunks(BATCH) {
            if let Err(error) = self.store.usage_append(batch).await {
                tracing::warn!(reason = error_chain(&error), "what workspaces use could not be recorded");
            }
        }
    }

    fn sample(&self, entry: &Entry, known: &mut LastSample, said: &Usage) -> UsageSample {
        let now = Instant::now();
        let before = known.before.map(|(before, at)| (before, now - at));
        let read = sanitize_sample(said, before, self.interval, &entry.limits);
        known.before = Some((Before { cpu_ms: said.cpu_ms.unwrap_or(0), uptime_ms: said.uptime_ms }, now));
        UsageSample {
            workspace: entry.id,
            project: entry.project,
            at: Utc::now().trunc_subsecs(6),
            seconds: read.seconds,
            cpu_seconds: read.cpu_seconds,
            memory_bytes: read.memory_bytes,
            disk_bytes: read.disk_bytes,
            processes: read.processes,
        }
    }

    /// Returns the bytes that a workspace keeps outside `/workspace`, as last counted. Counts one workspace after the
    /// other, so that a burst of counts does not keep the engine from other work.
    async fn outside(&self, entry: &Entry, known: &mut LastSample) -> u64 {
        let last = known.outside.map_or(0, |(bytes, _)| bytes);
        let every = self.interval * OUTSIDE_EVERY;
        if known.outside.is_some_and(|(_, at)| at.elapsed() < every) {
            return last;
        }
        let Some(registered) = self.providers.get(entry.provider()) else { return last };
        let counted = timeout(COUNT, registered.provider.written_outside(entry.id)).await;
        // An engine that does not say is asked again in time.
        let bytes = counted.ok().and_then(Result::ok).flatten().unwrap_or(last);
        known.outside = Some((bytes, Instant::now()));
        bytes
    }

    /// Warns of a workspace that holds more than its disk limit, and reports when it holds less again; once each.
    async fn watch_disk(&self, entry: &Entry, known: &mut LastSample, used: Option<u64>) {
        let Some(used) = used else { return };
        let limit = entry.limits.disk_bytes;
        let is_over = used > limit;
        if known.is_over == Some(is_over) {
            return;
        }
        let warning = is_over.then(|| {
            format!(
                "its files take more than the disk limit of {} MiB; remove some, in /workspace or outside, or make a \
                 workspace with a larger limit",
                limit >> 20
            )
        });
        match self.store.workspaces_disk_warning(entry.id, warning.as_deref()).await {
            Ok(is_news) => {
                known.is_over = Some(is_over);
                if is_news {
                    self.tell_crossing(entry, is_over, used);
                }
            }
            Err(error) => tracing::warn!(reason = error_chain(&error), "a warning could not be recorded"),
        }
    }

    fn tell_crossing(&self, entry: &Entry, is_over: bool, used: u64) {
        let limit = entry.limits.disk_bytes;
        telemetry::crossed_disk_limit(is_over);
        let step = if is_over {
            tracing::warn!(workspace = %entry.id, used, limit, "workspace is over its disk limit");
            "disk_over_limit"
        } else {
            tracing::info!(workspace = %entry.id, used, limit, "workspace is below its disk limit again");
            "disk_below_limit"
        };
        let act = self.audit.begin(entry.project, Some(entry.id), step);
        act.with("used_bytes", used).with("limit_bytes", limit).end(AuditEnd::OK);
    }

    /// Returns the samples of a workspace in a span of time, and their totals.
    pub(crate) async fn history(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<UsageHistory, LookupError> {
        let row = self.lookup.row(project, id).await?;
        let totals = self.store.usage_totals(row.id, since, until).await?;
        let samples = self.store.usage_list(row.id, since, until, MOST_SAMPLES).await?;
        Ok(UsageHistory { samples, totals })
    }
}

/// Asks a guest for its usage; `None` where it does not answer in time. The request does not count as use of the
/// workspace.
async fn ask(entry: &Entry) -> Option<Usage> {
    let guest = entry.ready_guest()?;
    timeout(ANSWER, guest.usage()).await.ok()?.ok()
}
