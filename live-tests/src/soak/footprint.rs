//! The resources that a process holds: descriptors, threads, memory, children. A server that has nothing more to do
//! must be back near where it began.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context as _;

use super::leak::{Finding, Leak};

/// Connections of clients that are kept alive, and of the server to its engine and its store, come and go.
const DESCRIPTORS: usize = 16;
/// The runtime keeps idle threads for blocking work for some seconds, and the settling waits for these; a few more
/// may be busy with health checks.
const THREADS: usize = 8;
/// The allocator keeps what was once used in every thread's arena; a leak of each call's buffers over a run of minutes
/// is more than this.
const MEMORY: u64 = 64 << 20;

/// The resources that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Child processes.
    pub children: usize,
}

impl Footprint {
    /// Returns the resources that a process holds now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let count = |folder: &str| anyhow::Ok(fs::read_dir(proc.join(folder)).context("the process is gone")?.count());
        let status = fs::read_to_string(proc.join("status")).context("the process is gone")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().context("reading VmRSS")?;
        let children = processes()?.values().filter(|process| process.parent == pid).count();
        Ok(Self { descriptors: count("fd")?, threads: count("task")?, memory: kibibytes << 10, children })
    }

    /// Returns a finding for each resource that has grown too much since `baseline`.
    pub fn grown_since(&self, baseline: &Self, who: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut beyond = |leak, what: &str, now: u64, before: u64, tolerance: u64| {
            if now > before + tolerance {
                findings.push(Finding::new(leak, format!("{who} has {now} {what}; at first it had {before}")));
            }
        };
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        beyond(Leak::Descriptor, "descriptors", wide(self.descriptors), wide(baseline.descriptors), wide(DESCRIPTORS));
        beyond(Leak::Thread, "threads", wide(self.threads), wide(baseline.threads), wide(THREADS));
        beyond(Leak::Memory, "bytes of memory", self.memory, baseline.memory, MEMORY);
        beyond(Leak::Process, "child processes", wide(self.children), wide(baseline.children), 0);
        findings
    }
}

/// A process of this namespace.
#[derive(Debug, Clone)]
pub struct Process {
    /// The process that started this one, or adopted it.
    pub parent: u32,
    /// The process's command line, or its name where it has none.
    pub command: String,
}

/// All processes of this namespace that live.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes() -> anyhow::Result<BTreeMap<u32, Process>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let is_zombie = field("State:").is_some_and(|state| state.starts_with('Z'));
        let Some(parent) = field("PPid:").and_then(|parent| parent.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        let command = if line.is_empty() { field("Name:").unwrap_or_default().to_owned() } else { line };
        if !is_zombie {
            all.insert(pid, Process { parent, command });
        }
    }
    Ok(all)
}

/// Adds all descendants of these processes.
pub fn with_descendants(mut pids: BTreeSet<u32>, all: &BTreeMap<u32, Process>) -> BTreeSet<u32> {
    loop {
        let before = pids.len();
        let children = all.iter().filter(|(_, process)| pids.contains(&process.parent)).map(|(pid, _)| *pid);
        pids.extend(children.collect::<Vec<_>>());
        if pids.len() == before {
            return pids;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Footprint = Footprint { descriptors: 20, threads: 10, memory: 30 << 20, children: 0 };

    #[test]
    fn a_process_that_stays_small_has_not_grown() {
        let later = Footprint { descriptors: 30, threads: 12, memory: 60 << 20, ..SMALL };
        assert_eq!(later.grown_since(&SMALL, "it"), []);
    }

    #[test]
    fn each_kind_of_growth_is_named() {
        let later = Footprint { descriptors: 60, threads: 40, memory: 200 << 20, children: 1 };
        let named: Vec<_> = later.grown_since(&SMALL, "it").into_iter().map(|finding| finding.leak).collect();
        assert_eq!(named, [Leak::Descriptor, Leak::Thread, Leak::Memory, Leak::Process]);
    }

    #[test]
    fn this_process_has_a_footprint() -> anyhow::Result<()> {
        let own = Footprint::of(std::process::id())?;
        assert!(own.descriptors > 2 && own.threads > 0 && own.memory > 0);
        Ok(())
    }
}
