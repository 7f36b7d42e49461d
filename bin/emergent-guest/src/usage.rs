//! The workspace's present usage: from its control group where that can be read, from `/proc` elsewhere.

use std::{fs, path::Path};

use emergent_guest_proto::{GuestError, Usage};

use crate::{credentials, failure, guest::Guest};

const CGROUP: &str = "/sys/fs/cgroup";

/// A control group without a limit says `max`, or this or more.
const NO_LIMIT: u64 = 1 << 60;

/// Measures.
///
/// # Errors
/// When the workspace's file system cannot be asked.
pub async fn measure(guest: &Guest) -> Result<Usage, GuestError> {
    let workspace = guest.workspace().to_owned();
    let uptime_ms = u64::try_from(guest.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let workspace_bytes = guest.tree.bytes(std::slice::from_ref(&workspace)).await;
    let volumes = [guest.settings.owned.as_slice(), &guest.settings.volumes].concat();
    let volume_bytes = if volumes.is_empty() { None } else { guest.volumes.bytes(&volumes).await };
    let problem = guest.executions.problem();
    credentials::blocking(move || {
        let disk =
            rustix::fs::statvfs(&workspace).map_err(|error| failure::at(&workspace, "measure", &error.into()))?;
        let group = Path::new(CGROUP);
        let processes = Processes::count(Path::new("/proc"));
        let from_group = |new: &str, old: &str| number(&group.join(new)).or_else(|| number(&group.join(old)));
        let memory = from_group("memory.current", "memory/memory.usage_in_bytes").map(|used| {
            // The page cache that the kernel gives back when asked is not in use.
            let stat = fs::read_to_string(group.join("memory.stat"));
            let stat = stat.or_else(|_| fs::read_to_string(group.join("memory/memory.stat"))).unwrap_or_default();
            used.saturating_sub(
                field(&stat, "inactive_file").or_else(|| field(&stat, "total_inactive_file")).unwrap_or(0),
            )
        });
        let limit = from_group("memory.max", "memory/memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
        Ok(Usage {
            cpu_ms: cpu_of_group(group).or(processes.cpu_ms),
            memory_bytes: memory.or(processes.memory_bytes),
            memory_limit_bytes: limit,
            processes: from_group("pids.current", "pids/pids.current").or(processes.count),
            disk_used_bytes: Some((disk.f_blocks - disk.f_bfree).saturating_mul(disk.f_frsize)),
            disk_total_bytes: Some(disk.f_blocks.saturating_mul(disk.f_frsize)),
            workspace_bytes,
            volume_bytes,
            uptime_ms,
            problem,
        })
    })
    .await
}

fn cpu_of_group(group: &Path) -> Option<u64> {
    let new =
        fs::read_to_string(group.join("cpu.stat")).ok().and_then(|stat| Some(field(&stat, "usage_usec")? / 1_000));
    new.or_else(|| Some(number(&group.join("cpuacct/cpuacct.usage"))? / 1_000_000))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of a line `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name)?.1.trim().parse().ok())
}

/// Sums over the processes alive.
struct Processes {
    count: Option<u64>,
    cpu_ms: Option<u64>,
    memory_bytes: Option<u64>,
}

impl Processes {
    fn count(proc: &Path) -> Self {
        let Ok(entries) = fs::read_dir(proc) else { return Self { count: None, cpu_ms: None, memory_bytes: None } };
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let directories = entries.filter_map(Result::ok).map(|entry| entry.path());
        let (mut count, mut ticks, mut pages) = (0, 0_u64, 0_u64);
        for directory in
            directories.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_process))
        {
            // One that ends meanwhile is not counted.
            let Ok(stat) = fs::read(directory.join("stat")) else { continue };
            let stat = String::from_utf8_lossy(&stat);
            let Some((_, fields)) = stat.rsplit_once(')') else { continue };
            let field =
                |position: usize| fields.split_whitespace().nth(position).and_then(|text| text.parse::<u64>().ok());
            count += 1;
            // utime, stime and rss of proc(5), counted from the state.
            ticks = ticks.saturating_add(field(11).unwrap_or(0)).saturating_add(field(12).unwrap_or(0));
            pages = pages.saturating_add(field(21).unwrap_or(0));
        }
        let milliseconds_per_tick = 1_000 / rustix::param::clock_ticks_per_second().max(1);
        Self {
            count: Some(count),
            cpu_ms: Some(ticks.saturating_mul(milliseconds_per_tick)),
            memory_bytes: Some(pages.saturating_mul(rustix::param::page_size() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        assert_eq!(field("usage_usec_x 1\nusage_usec 5000\n", "usage_usec"), Some(5_000));
        assert_eq!(field("usage_usec\n", "usage_usec"), None);
    }
}
