//! Keeps the machines under the engines from running full: counts what sandboxes write and which tasks they start, ends
//! those that take more than they may, and says whether there is room for more.
//!
//! ```text
//!   every half second: how much disk is free, how many tasks there are   (cheap)
//!      │ the disk fell, or half a minute is over, or somebody is full
//!      ▼
//!   count the files of each sandbox   (a fifth of the time at most)
//!      │ over its disk limit by a margin, or grown while the reserve is touched
//!      ▼
//!   end it: its files stay, file calls start it again, and no program runs until there is room
//! ```
//!
//! Only machines are guarded that the provider can look at ([`host_room`](emergent_provider::Inventory::host_room)), and
//! only sandboxes whose disk limit the provider does not enforce itself.

mod judge;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use emergent_provider::{ExitReason, HostRoom, OperationError, ProviderKind, WorkspaceId};
use emergent_store::{ErrorReason, MCP_SERVERS_ON, McpServerState, WorkspaceRow, WorkspaceState};
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::judge::{Judgement, Seen};
use crate::{
    CallError,
    inner::{Core, chain},
    providers::Registered,
    registry::Entry,
    situation::Situation,
};

/// How often the machine is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often files are counted although nothing seems to be written.
const REGULAR: Duration = Duration::from_secs(30);
/// How much the disk falls by before files are counted again.
const NEWS: u64 = 16 << 20;
/// How many times as long as a count took no other one is begun.
const REST: u32 = 4;
/// How many sandboxes are counted together.
const TOGETHER: usize = 4;
/// The part of the task budget from which on a sandbox is one of those that use it up.
const LARGE: u64 = 8;
/// How many tasks a new sandbox needs to begin with.
const FIRST_TASKS: u64 = 128;

/// Why nothing may write in a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullness {
    /// Its files take more than its disk limit.
    Own {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The disk of its machine is nearly full.
    Host,
}

/// Why the machine under an engine takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Its disk is nearly full.
    #[error(
        "the host's disk has {} MiB left, of which {} MiB are kept free (WORKSPACE_DISK_RESERVE), and this needs {} MiB; \
         remove workspaces, snapshots or images, or ask an administrator for a larger disk",
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
    /// Its tasks are nearly used up.
    #[error(
        "the host has {tasks} processes and threads, and takes no more workspaces from {budget} on, so that it keeps a \
         quarter of what it may have; stop some, or ask an administrator to raise the host's kernel.pid_max and \
         kernel.threads-max"
    )]
    Tasks {
        /// How many there are.
        tasks: u64,
        /// From how many on nothing more is taken.
        budget: u64,
    },
}

/// What is known of one engine's machine from one look to the next.
struct Guard {
    seen: HashMap<WorkspaceId, Seen>,
    /// How much disk was free when files were last counted.
    counted_at: Option<u64>,
    next_count: Instant,
    next_regular: Instant,
    /// Whether the log has said that the machine is nearly full.
    told: bool,
}

/// A sandbox whose disk is watched.
struct Watched {
    id: WorkspaceId,
    limit: u64,
    /// The workspace that it is of, unless it hosts an MCP server.
    entry: Option<Arc<Entry>>,
}

// === impl Fullness ===

impl Fullness {
    /// What a row says of it.
    pub(crate) fn of(row: &WorkspaceRow) -> Option<Self> {
        match row.state {
            // Which of the two it is, the next count tells.
            WorkspaceState::Error { reason: ErrorReason::DiskFull, .. } => {
                Some(Self::Own { limit: row.limits.disk_bytes })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { limit } => write!(
                f,
                "the workspace's files, those outside /workspace too, take more than its disk limit of {} MiB, so that \
                 nothing is written and no program is started in it; remove files with POST …/files/remove, which \
                 works all the same, or make a workspace with a larger limit",
                limit >> 20
            ),
            Self::Host => f.write_str(
                "the host's disk is nearly full (WORKSPACE_DISK_RESERVE), so that nothing is written; remove what is not \
                 needed any more, or ask an administrator for a larger disk",
            ),
        }
    }
}

// === impl Core ===

impl Core {
    /// Guards one engine's machine for the life of the service.
    pub(crate) async fn keep_guard(self: Arc<Self>, registered: Arc<Registered>) {
        let now = Instant::now();
        let mut guard =
            Guard { seen: HashMap::new(), counted_at: None, next_count: now, next_regular: now, told: false };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.goes_on(&mut ticks).await {
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

    async fn watch_disks(&self, registered: &Registered, room: &HostRoom, guard: &mut Guard) {
        let is_low = room.disk_free < self.config.disk_reserve;
        if is_low != std::mem::replace(&mut guard.told, is_low) {
            let (provider, free_bytes) = (registered.provider.kind(), room.disk_free);
            match is_low {
                true => tracing::warn!(%provider, free_bytes, "the host's disk is nearly full: its reserve is touched"),
                false => tracing::info!(%provider, free_bytes, "the host's disk has room again"),
            }
        }
        let entries = self.registry.all();
        let is_anybody_full = entries.iter().any(|entry| entry.fullness().is_some());
        let fell = guard.counted_at.is_none_or(|before| room.disk_free.saturating_add(NEWS) < before);
        let now = Instant::now();
        let is_due = is_low || is_anybody_full || fell || now >= guard.next_regular;
        if !is_due || now < guard.next_count {
            // What is given back is not written: the next fall counts from here.
            guard.counted_at = guard.counted_at.max(Some(room.disk_free));
            return;
        }
        let watched = self.watched(registered.provider.kind()).await;
        let ids: HashSet<_> = watched.iter().map(|watched| watched.id).collect();
        guard.seen.retain(|id, _| ids.contains(id));
        let count = async |watched: Watched| (registered.provider.disk_use(watched.id).await, watched);
        let mut counted = std::pin::pin!(stream::iter(watched).map(count).buffer_unordered(TOGETHER));
        while let Some((used, watched)) = counted.next().await {
            // What cannot be counted now is counted later.
            let Ok(Some(used)) = used else { continue };
            let seen = guard.seen.entry(watched.id).or_default();
            self.judge(registered, &watched, seen, used, is_low).await;
        }
        guard.counted_at = Some(room.disk_free);
        guard.next_count = Instant::now() + now.elapsed() * REST;
        guard.next_regular = Instant::now() + REGULAR;
    }

    async fn judge(&self, registered: &Registered, watched: &Watched, seen: &mut Seen, used: u64, is_low: bool) {
        let limit = watched.limit;
        let is_running = watched.entry.as_ref().is_none_or(|entry| entry.situation() == Situation::Ready);
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
    async fn end_sandbox(&self, registered: &Registered, id: WorkspaceId, why: ExitReason) {
        match registered.provider.end(id, why).await {
            Ok(()) | Err(OperationError::Gone) => {}
            Err(error) => tracing::warn!(sandbox = %id, reason = chain(&error), "a sandbox could not be ended"),
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
                Err(error) => tracing::debug!(reason = chain(&error), "hosted MCP servers could not be listed"),
            }
        }
        watched
    }

    /// Whether the machine under a provider has room for one more sandbox, and for `wanted` bytes.
    pub(crate) fn has_room(&self, provider: ProviderKind, wanted: u64) -> Result<(), NoRoom> {
        let Some(room) = self.providers.get(provider).and_then(|registered| registered.provider.host_room()) else {
            return Ok(());
        };
        let reserve = self.config.disk_reserve;
        if room.disk_free < reserve.saturating_add(wanted) {
            return Err(NoRoom::Disk { free: room.disk_free, reserve, wanted });
        }
        let budget = room.task_budget();
        if room.tasks + FIRST_TASKS > budget {
            return Err(NoRoom::Tasks { tasks: room.tasks, budget });
        }
        Ok(())
    }

    /// Whether the machine of a workspace has room for so many copies of its files.
    pub(crate) async fn has_room_for_copies(&self, entry: &Entry, copies: u32) -> Result<(), NoRoom> {
        let Some(registered) = self.providers.get(entry.provider()) else { return Ok(()) };
        // Where its files cannot be counted, that there is room at all has to do.
        let used = registered.provider.disk_use(entry.id).await.ok().flatten().unwrap_or(0);
        self.has_room(entry.provider(), used.saturating_mul(copies.into()))
    }

    /// Whether a call may start programs in a workspace.
    pub(crate) fn may_run(&self, entry: &Entry) -> Result<(), CallError> {
        entry.fullness().map_or(Ok(()), |fullness| Err(CallError::Full(fullness)))
    }

    /// Whether a call may write in a workspace.
    pub(crate) fn may_write(&self, entry: &Entry) -> Result<(), CallError> {
        self.may_run(entry)?;
        match self.has_room(entry.provider(), 0) {
            Err(NoRoom::Disk { .. }) => Err(CallError::Full(Fullness::Host)),
            Ok(()) | Err(NoRoom::Tasks { .. }) => Ok(()),
        }
    }
}
