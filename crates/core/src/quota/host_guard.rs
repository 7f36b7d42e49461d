//! Keeps the machines under the engines from running full: counts what sandboxes write and which tasks they start, ends
//! those that take more than they may, and says whether there is room for more.
//!
//! ```text
//!   every half second: how much disk is free, how many tasks there are   (cheap)
//!      │ the disk fell, or half a minute is over, or somebody is full
//!      ▼
//!   count the files of each sandbox   (of each in a fifth of the time at most; once more, at once, where files of a
//!      │                               full one were removed, and the call that comes next waits for that count)
//!      │ over its disk limit by a margin, or grown while the reserve is touched
//!      ▼
//!   end it: its files stay, file calls start it again, and no program runs until there is room
//! ```
//!
//! Only machines are guarded that the provider can look at ([`host_room`](emergent_provider::Inventory::host_room)),
//! and only sandboxes whose disk limit the provider does not enforce itself.

mod judge;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use emergent_provider::{ExitReason, HostRoom, OperationError, ProviderKind};
use emergent_store::{MCP_SERVERS_ON, McpServerState, Store};
use emergent_types::{SandboxId, error_chain};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use self::judge::{Judgement, Seen};
use crate::{
    placement::providers::{Providers, Registered},
    tasks::Tasks,
    workspace::{
        entry::Entry,
        fullness::Fullness,
        registry::Registry,
        state::WorkspaceStatus,
        validate::{InvalidField, invalid},
    },
};

/// The interval between looks at the machine.
const TICK: Duration = Duration::from_millis(500);
/// The interval between counts of files while no writes are seen.
const REGULAR: Duration = Duration::from_secs(30);
/// How much the disk falls by before files are counted again.
const NEWS: u64 = 16 << 20;
/// The least pause between two counts of a sandbox, in durations of the first one. Counts that a removal of files asks
/// for keep this distance from each other, and not from the regular ones.
const REST: u32 = 4;
/// The time that a call waits for the count that says whether a removal of files has made room for it.
const RECOUNT: Duration = Duration::from_secs(5);
/// The number of sandboxes that are counted together.
const TOGETHER: usize = 16;
/// The time for which counts are waited for before the machine is looked at again; those that take longer go on.
const PATIENCE: Duration = Duration::from_millis(250);
/// The part of the task budget from which on a sandbox is one of those that use it up.
const LARGE: u64 = 8;
/// The number of tasks that a new sandbox needs to begin with.
const FIRST_TASKS: u64 = 128;

/// The reason for which the machine under an engine takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The machine's disk is nearly full.
    #[error(
        "the host's disk has {} MiB left, or files for as much, of which {} MiB are kept free \
         (WORKSPACE_DISK_RESERVE), and this needs {} MiB; remove workspaces, snapshots or images, or ask an administrator for a larger disk",
        .free >> 20, .reserve >> 20, .wanted >> 20
    )]
    Disk {
        /// Bytes that are left.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
        /// Bytes that are known to be written.
        wanted: u64,
    },
    /// The machine's tasks are nearly used up.
    #[error(
        "the host has {tasks} processes and threads, and takes no more workspaces from {budget} on, so that it keeps a \
         quarter of what it may have; stop some, or ask an administrator to raise the host's kernel.pid_max and \
         kernel.threads-max"
    )]
    Tasks {
        /// The number of processes and threads that there are.
        tasks: u64,
        /// From how many on nothing more is taken.
        budget: u64,
    },
}

/// Guards the machines under the engines, and says whether there is room on them.
pub(crate) struct HostGuard {
    store: Store,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
    tasks: Tasks,
    /// The bytes of an engine's disk that stay free.
    disk_reserve: u64,
}

/// The facts about one engine's machine that are kept from one look to the next.
struct Guard {
    known: HashMap<SandboxId, CountedSandbox>,
    counts: JoinSet<Counted>,
    places: Arc<Semaphore>,
    /// How much disk was free when counts were last begun.
    counted_at: Option<u64>,
    /// Some sandbox was left out then.
    is_behind: bool,
    next_regular: Instant,
    /// Whether the log has said that the machine is nearly full.
    told: bool,
}

/// The facts about one sandbox that are kept from one look to the next.
struct CountedSandbox {
    seen: Seen,
    is_counting: bool,
    not_before: Instant,
    /// The same for a count that a removal of files asks for.
    no_recount_before: Instant,
}

/// A count of a sandbox's files.
struct Counted {
    watched: Watched,
    used: Option<u64>,
    took: Duration,
    /// A removal of files asked for it.
    is_recount: bool,
}

/// A sandbox whose disk is watched.
struct Watched {
    id: SandboxId,
    limit: u64,
    /// The workspace that it is of, unless it hosts an MCP server.
    entry: Option<Arc<Entry>>,
}

// === impl Guard ===

impl Guard {
    fn new() -> Self {
        Self {
            known: HashMap::new(),
            counts: JoinSet::new(),
            places: Arc::new(Semaphore::new(TOGETHER)),
            counted_at: None,
            is_behind: false,
            next_regular: Instant::now(),
            told: false,
        }
    }
}

impl Default for CountedSandbox {
    fn default() -> Self {
        let now = Instant::now();
        Self { seen: Seen::default(), is_counting: false, not_before: now, no_recount_before: now }
    }
}

// === impl CountedSandbox ===

impl CountedSandbox {
    /// Whether a count may begin; `is_recount`: a removal of files asks for it.
    fn may_be_counted(&self, now: Instant, is_recount: bool) -> bool {
        !self.is_counting && now >= if is_recount { self.no_recount_before } else { self.not_before }
    }

    fn has_counted(&mut self, now: Instant, took: Duration, is_recount: bool) {
        self.is_counting = false;
        self.not_before = now + took * REST;
        if is_recount {
            // A tick at least: removing files one by one keeps no guard busy.
            self.no_recount_before = now + (took * REST).max(TICK);
        }
    }
}

// === impl HostGuard ===

impl HostGuard {
    pub(crate) fn new(
        store: Store,
        registry: Arc<Registry>,
        providers: Arc<Providers>,
        tasks: Tasks,
        disk_reserve: u64,
    ) -> Self {
        Self { store, registry, providers, tasks, disk_reserve }
    }

    /// Guards one engine's machine for the life of the service.
    pub(crate) async fn keep_guard(self: Arc<Self>, registered: Arc<Registered>) {
        let mut guard = Guard::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let goes_on = tokio::select! {
                goes_on = self.tasks.goes_on(&mut ticks) => goes_on,
                () = registered.files_removed.notified() => !self.tasks.is_going_down(),
            };
            if !goes_on {
                return;
            }
            let Some(room) = registered.provider.host_room() else { continue };
            if room.tasks >= room.task_budget() {
                self.end_largest(&registered, &room).await;
            }
            if !registered.provider.capabilities().disk_quota {
                self.watch_disks(&registered, &room, &mut guard).await;
            }
        }
    }

    /// Ends the sandbox that takes the most tasks of a machine that has too many, if that is a large part of them.
    async fn end_largest(&self, registered: &Registered, room: &HostRoom) {
        let mut largest = None;
        for Watched { id, .. } in self.watched(registered.provider.kind()).await {
            if let Ok(Some(tasks)) = registered.provider.task_use(id).await {
                largest = largest.max(Some((tasks, id)));
            }
        }
        let Some((tasks, id)) = largest.filter(|(tasks, _)| *tasks >= room.task_budget() / LARGE) else { return };
        tracing::warn!(sandbox = %id, tasks, of = room.tasks, "the host runs out of tasks; its largest sandbox is ended");
        self.end_sandbox(registered, id, ExitReason::ProcessLimit).await;
    }

    async fn watch_disks(&self, registered: &Arc<Registered>, room: &HostRoom, guard: &mut Guard) {
        let is_low = room.disk_free < self.disk_reserve;
        if is_low != std::mem::replace(&mut guard.told, is_low) {
            let (provider, free_bytes) = (registered.provider.kind(), room.disk_free);
            match is_low {
                true => tracing::warn!(%provider, free_bytes, "the host's disk is nearly full: its reserve is touched"),
                false => tracing::info!(%provider, free_bytes, "the host's disk has room again"),
            }
        }
        let is_anybody_full = self.registry.all().iter().any(|entry| entry.fullness().is_some());
        let fell = guard.counted_at.is_none_or(|before| room.disk_free.saturating_add(NEWS) < before);
        if is_low || is_anybody_full || fell || guard.is_behind || Instant::now() >= guard.next_regular {
            self.begin_counts(registered, guard).await;
            guard.counted_at = Some(room.disk_free);
        } else {
            // What is given back is not written: the next fall counts from here.
            guard.counted_at = guard.counted_at.max(Some(room.disk_free));
        }
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(counted)) = timeout_at(deadline, guard.counts.join_next()).await {
            let Ok(Counted { watched, used, took, is_recount }) = counted else { continue };
            if let Some(known) = guard.known.get_mut(&watched.id) {
                known.has_counted(Instant::now(), took, is_recount);
                // What cannot be counted now is counted later.
                if let Some(used) = used {
                    self.judge(registered, &watched, &mut known.seen, used, is_low).await;
                }
            }
            if let Some(entry) = &watched.entry {
                entry.end_recount();
            }
        }
    }

    /// Begins to count the files of each sandbox, but of those that are being counted or have just been. One whose
    /// files take long to count holds up no other.
    async fn begin_counts(&self, registered: &Arc<Registered>, guard: &mut Guard) {
        let watched = self.watched(registered.provider.kind()).await;
        let ids: HashSet<_> = watched.iter().map(|watched| watched.id).collect();
        guard.known.retain(|id, _| ids.contains(id));
        guard.next_regular = Instant::now() + REGULAR;
        guard.is_behind = false;
        for watched in watched {
            let known = guard.known.entry(watched.id).or_default();
            let is_recount = watched.entry.as_ref().is_some_and(|entry| entry.is_recount_wanted());
            if !known.may_be_counted(Instant::now(), is_recount) {
                guard.is_behind = true;
                continue;
            }
            known.is_counting = true;
            if let Some(entry) = &watched.entry {
                entry.begin_recount();
            }
            let enough = known.seen.enough(watched.limit);
            let (registered, places) = (Arc::clone(registered), Arc::clone(&guard.places));
            guard.counts.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await.ok();
                let began = Instant::now();
                let used = registered.provider.disk_use(watched.id, enough).await.ok().flatten();
                Counted { watched, used, took: began.elapsed(), is_recount }
            });
        }
    }

    async fn judge(&self, registered: &Registered, watched: &Watched, seen: &mut Seen, used: u64, is_low: bool) {
        let limit = watched.limit;
        let is_running = watched.entry.as_ref().is_none_or(|entry| entry.status() == WorkspaceStatus::Ready);
        let judgement = seen.judge(used, limit, is_low);
        if let Some(entry) = &watched.entry {
            match judgement {
                Judgement::Fine => entry.set_fullness(None),
                Judgement::Full(fullness) | Judgement::End(fullness) => entry.set_fullness(Some(fullness)),
                Judgement::Unchanged => {}
            }
        }
        let why = match judgement {
            Judgement::End(Fullness::Own { .. }) => ExitReason::DiskLimit,
            Judgement::End(Fullness::Host) => ExitReason::HostDisk,
            Judgement::Fine | Judgement::Full(_) | Judgement::Unchanged => return,
        };
        if is_running {
            tracing::warn!(sandbox = %watched.id, used, limit, ?why, "a sandbox that takes too much disk is ended");
            self.end_sandbox(registered, watched.id, why).await;
        }
    }

    /// The engine tells of the end, and whoever drives the sandbox follows.
    async fn end_sandbox(&self, registered: &Registered, id: SandboxId, why: ExitReason) {
        match registered.provider.end(id, why).await {
            Ok(()) | Err(OperationError::Gone) => {}
            Err(error) => tracing::warn!(sandbox = %id, reason = error_chain(&error), "a sandbox could not be ended"),
        }
    }

    /// The sandboxes of a provider that this server drives and that may have files.
    async fn watched(&self, provider: ProviderKind) -> Vec<Watched> {
        let entries = self.registry.all().into_iter().filter(|entry| entry.provider() == provider);
        let mut watched: Vec<_> =
            entries.map(|entry| Watched { id: entry.id, limit: entry.limits.disk_bytes, entry: Some(entry) }).collect();
        if provider == MCP_SERVERS_ON {
            match self.store.mcp_servers_of(self.store.server_id()).await {
                Ok(servers) => {
                    let running = servers.into_iter().filter(|server| server.state == McpServerState::Running);
                    watched.extend(running.map(|server| Watched {
                        id: server.id.sandbox(),
                        limit: server.spec.disk_bytes,
                        entry: None,
                    }));
                }
                Err(error) => tracing::debug!(reason = error_chain(&error), "hosted MCP servers could not be listed"),
            }
        }
        watched
    }

    /// Whether the machine under a provider has room for one more sandbox, and for `wanted` bytes.
    pub(crate) fn has_room(&self, provider: ProviderKind, wanted: u64) -> Result<(), NoRoom> {
        let Some(room) = self.providers.get(provider).and_then(|registered| registered.provider.host_room()) else {
            return Ok(());
        };
        let reserve = self.disk_reserve;
        if room.disk_free < reserve.saturating_add(wanted) {
            return Err(NoRoom::Disk { free: room.disk_free, reserve, wanted });
        }
        let budget = room.task_budget();
        if room.tasks + FIRST_TASKS > budget {
            return Err(NoRoom::Tasks { tasks: room.tasks, budget });
        }
        Ok(())
    }

    /// Whether the machine under a provider has as many cores as a sandbox is to have.
    pub(crate) fn has_cores(&self, provider: ProviderKind, cores: f64) -> Result<(), InvalidField> {
        let room = self.providers.get(provider).and_then(|registered| registered.provider.host_room());
        match room.and_then(|room| room.cores) {
            Some(most) if cores > f64::from(most) => {
                Err(invalid("limits.cpu", format!("takes {most} cores at most, as many as the host has")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the machine of a workspace has room for so many copies of its files.
    pub(crate) async fn has_room_for_copies(&self, entry: &Entry, copies: u32) -> Result<(), NoRoom> {
        let Some(registered) = self.providers.get(entry.provider()) else { return Ok(()) };
        // Where its files cannot be counted, that there is room at all has to do.
        let used = registered.provider.copy_use(entry.id).await.ok().flatten().unwrap_or(0);
        self.has_room(entry.provider(), used.saturating_mul(copies.into()))
    }

    /// Notes that a call has removed files of a workspace: one that is full is counted again at once.
    pub(crate) fn note_removal(&self, entry: &Entry) {
        if entry.note_removal()
            && let Some(registered) = self.providers.get(entry.provider())
        {
            registered.files_removed.notify_one();
        }
    }

    /// Whether a call may start programs in a workspace. Waits for the count that a removal of files has asked for.
    pub(crate) async fn may_run(&self, entry: &Entry) -> Result<(), Fullness> {
        // A count that takes longer goes on, and a later call sees its result.
        timeout(RECOUNT, entry.recounted()).await.ok();
        entry.fullness().map_or(Ok(()), Err)
    }

    /// Whether a call may write in a workspace. Waits as [`may_run`](Self::may_run) does.
    pub(crate) async fn may_write(&self, entry: &Entry) -> Result<(), Fullness> {
        self.may_run(entry).await?;
        match self.has_room(entry.provider(), 0) {
            Err(NoRoom::Disk { .. }) => Err(Fullness::Host),
            Ok(()) | Err(NoRoom::Tasks { .. }) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_of_files_is_counted_at_once_and_many_of_them_are_not_counted_without_end() {
        let mut known = CountedSandbox::default();
        let (now, took) = (Instant::now(), Duration::from_secs(2));
        known.has_counted(now, took, false);
        assert!(!known.may_be_counted(now + took, false), "regular counts rest");
        assert!(known.may_be_counted(now, true));
        known.is_counting = true;
        assert!(!known.may_be_counted(now + took * REST, true), "one at a time");
        known.has_counted(now, took, true);
        assert!(!known.may_be_counted(now + took, true));
        assert!(known.may_be_counted(now + took * REST, true));
        known.has_counted(now, Duration::ZERO, true);
        assert!(!known.may_be_counted(now, true) && known.may_be_counted(now + TICK, true));
    }
}
