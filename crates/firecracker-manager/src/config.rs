//! The operator's decisions.

use std::{path::PathBuf, time::Duration};

use uuid::Uuid;

use crate::admission::Budget;

/// Memory of the host that sandboxes leave alone, in MiB.
const HOST_RESERVE_MIB: u64 = 1024;
/// The host's memory when it does not say, in MiB.
const UNKNOWN_HOST_MIB: u64 = 4096;
/// Machines at once, when nobody says.
const DEFAULT_MACHINES: usize = 64;
/// Snapshots of templates that are kept, when nobody says.
pub const DEFAULT_TEMPLATE_SNAPSHOTS: u16 = 4;

/// The settings of the manager, checked by whoever reads them.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// The base directory.
    pub base: PathBuf,
    /// The resources that machines may use in all.
    pub budget: Budget,
    /// The time that a guest may take from the start of its machine to its first answer.
    pub boot_deadline: Duration,
    /// The interval at which machines are looked after, and expired sandboxes looked for.
    pub watch_interval: Duration,
    /// The time for which a sandbox lives whose request names none; `None`: until it is deleted.
    pub default_ttl: Option<Duration>,
    /// The present boot of the host, as its kernel names it; `None` where it does not. Machines of another boot are
    /// gone, and so is what had not reached the disk.
    pub host_boot: Option<Uuid>,
    /// The number of snapshots of templates that are kept, for sandboxes to begin with; with none, every sandbox boots.
    pub template_snapshots: u16,
}

// === impl ManagerConfig ===

impl ManagerConfig {
    /// The settings where nothing but the base directory is said: nine tenths of the host's memory less a reserve.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        let host = memory_mib("MemTotal").unwrap_or(UNKNOWN_HOST_MIB);
        let memory_mib = host.saturating_sub(HOST_RESERVE_MIB).max(host / 4) * 9 / 10;
        Self {
            base: base.into(),
            budget: Budget { machines: DEFAULT_MACHINES, memory_mib },
            boot_deadline: Duration::from_secs(120),
            watch_interval: Duration::from_secs(1),
            default_ttl: None,
            host_boot: host_boot(),
            template_snapshots: DEFAULT_TEMPLATE_SNAPSHOTS,
        }
    }
}

fn host_boot() -> Option<Uuid> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}

/// A figure of `/proc/meminfo`, in MiB.
pub(crate) fn memory_mib(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024)
}
