//! The whole process tree of an execution, even after its processes have left the group or session.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::signal;

/// The features that the processes of one execution share.
#[derive(Debug, Clone)]
pub struct Family {
    /// The first process, while it has not been reaped; afterwards its id may be another's.
    pub leader: Option<i32>,
    /// The group that tags the processes.
    pub group_tag: Option<u32>,
    /// A `KEY=value` in the processes' environment. Only root's processes can drop the tag, and only their
    /// environments are read.
    pub variable: Option<String>,
}

/// A process, as `/proc` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    groups: Vec<u32>,
}

/// The limit of rounds of killing: processes that are left after so many cannot be killed.
const MAX_ROUNDS: usize = 64;

impl Family {
    /// The live processes of the family.
    pub fn members(&self) -> Vec<i32> {
        let processes = processes(Path::new("/proc"));
        let parents: HashMap<i32, i32> = processes.iter().map(|process| (process.pid, process.parent)).collect();
        let own = |process: &&Process| {
            self.group_tag.is_some_and(|tag| process.groups.contains(&tag))
                || self.leader.is_some_and(|leader| {
                    process.pid == leader || process.session == leader || descends(&parents, process.pid, leader)
                })
                || self.variable.as_deref().is_some_and(|variable| has_variable(process.pid, variable))
        };
        processes.iter().filter(own).map(|process| process.pid).collect()
    }

    /// Sends SIGTERM to every member, gives them `grace` to end, and kills the rest; `true` when none is left.
    pub async fn terminate(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        self.on_thread(|family| {
            for pid in family.members() {
                // One that has just ended needs no signal.
                let _ = signal::send(pid, libc::SIGTERM);
                let _ = signal::send(pid, libc::SIGCONT);
            }
        })
        .await;
        let mut pause = Duration::from_millis(2);
        while Instant::now() < deadline {
            if self.on_thread(|family| family.members().is_empty()).await == Some(true) {
                return true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.on_thread(Self::kill).await == Some(true)
    }

    /// Runs a job that reads `/proc` on a blocking thread; `None` when it panicked.
    async fn on_thread<T: Send + 'static>(&self, job: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let family = self.clone();
        tokio::task::spawn_blocking(move || job(&family)).await.ok()
    }

    /// Kills every member, including members that are born meanwhile. Blocks; `true` when none is left.
    ///
    /// Members are stopped before they are killed: a stopped process makes no more, and keeps its place in the limit
    /// on processes, so that even a fork bomb comes to an end.
    pub fn kill(&self) -> bool {
        for _ in 0..MAX_ROUNDS {
            let mut stopped = HashSet::new();
            for _ in 0..MAX_ROUNDS {
                let before = stopped.len();
                for pid in self.members() {
                    if stopped.insert(pid) {
                        let _ = signal::send(pid, libc::SIGSTOP);
                    }
                }
                if stopped.len() == before {
                    break;
                }
            }
            if stopped.is_empty() {
                return true;
            }
            for pid in stopped {
                let _ = signal::send(pid, libc::SIGKILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

fn descends(parents: &HashMap<i32, i32>, pid: i32, ancestor: i32) -> bool {
    // The table is not one instant's, so it may hold a cycle: never walk further than it is long.
    let line = std::iter::successors(parents.get(&pid), |parent| parents.get(parent));
    line.take(parents.len()).any(|parent| *parent == ancestor)
}

fn has_variable(pid: i32, variable: &str) -> bool {
    // Unreadable for processes of other users, and gone with the process.
    let environment = fs::read(PathBuf::from(format!("/proc/{pid}/environ"))).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// Returns all processes that are not dead. A process that ends during the scan is left out.
fn processes(proc: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let pids = entries.filter_map(Result::ok).filter_map(pid);
    pids.filter_map(|pid: i32| {
        let directory = proc.join(pid.to_string());
        let stat = fs::read(directory.join("stat")).ok()?;
        let status = fs::read(directory.join("status")).ok()?;
        parse(pid, &String::from_utf8_lossy(&stat), &String::from_utf8_lossy(&status))
    })
    .collect()
}

/// Reads `/proc/PID/stat` and `/proc/PID/status`. `None` for a dead process and for malformed text.
fn parse(pid: i32, stat: &str, status: &str) -> Option<Process> {
    // The name stands in parentheses and may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    let groups = groups.split_whitespace().filter_map(|group| group.parse().ok()).collect();
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent, session, groups })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let process = parse(7, "7 (a) Z (b)) S 3 4 5 0", "Name:\tx\nGroups:\t27 1073741824 \n");
        assert_eq!(process, Some(Process { pid: 7, parent: 3, session: 5, groups: vec![27, 1_073_741_824] }));
    }

    #[test]
    fn the_dead_are_left_out() {
        assert_eq!(parse(7, "7 (a) Z 3 4 5 0", "Groups:\t27 \n"), None);
    }

    #[test]
    fn a_cycle_among_parents_ends() {
        assert!(!descends(&HashMap::from([(1, 2), (2, 1)]), 1, 9));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(stat in ".*", status in ".*") {
            let _ = parse(1, &stat, &status);
        }
    }
}
