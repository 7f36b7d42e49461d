//! The rows of microVMs, one set for each driver, which is named in place of the runtime.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Row, Samples, Target, measure::repeat};
use crate::{Manager, manager::MEMORY_MB, microvm};

/// The number of times that each row is measured: a machine that is emulated takes seconds to boot.
const ROUNDS: usize = 5;

/// The memory that a machine's monitor may take beside the guest's, in MB.
const MONITOR_MB: f64 = 5.0;

type Measured = anyhow::Result<(Samples, Option<Samples>)>;

/// The rows of each driver; of one that runs no machines here, with the reason.
pub async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for driver in ["firecracker", "qemu"] {
        match Subject::on(driver).await {
            Ok(subject) => rows.extend(subject.rows().await),
            Err(why) => {
                rows.extend(
                    plan().map(|(name, unit, target)| Row::missing(name, driver, unit, target, &format!("{why:#}"))),
                );
            }
        }
    }
    rows
}

/// The rows in their order.
fn plan() -> [(&'static str, &'static str, Target); 5] {
    [
        ("microVM: boot to first command", "ms", Target::OursAtMost(125.0)),
        ("microVM: restore to first command", "ms", Target::OursAtMost(70.0)),
        ("microVM: fork to first command, over boot", "ms", Target::AtMost(1.0)),
        ("microVM: resident memory of its monitor", "MB", Target::OursAtMost(f64::from(MEMORY_MB) + MONITOR_MB)),
        ("microVM: private memory beside the guest's", "MB", Target::OursAtMost(MONITOR_MB)),
    ]
}

/// A manager, and the driver of its machines.
struct Subject {
    manager: Manager,
    runtime: &'static str,
}

// === impl Subject ===

impl Subject {
    async fn on(driver: &'static str) -> anyhow::Result<Self> {
        if let Some(reason) = microvm::why_missing() {
            anyhow::bail!(reason);
        }
        let manager = Manager::start(&[("FIRECRACKER_DRIVER", driver)]).await?;
        let (_, health) = manager.call("GET /health", None).await?;
        ensure!(health["status"] == "healthy", "{}", health["reason"].as_str().unwrap_or("no machine can be run"));
        let runtime = match (driver, health["acceleration"].as_str()) {
            ("qemu", Some("kvm")) => "qemu-kvm",
            ("qemu", _) => "qemu-tcg",
            _ => driver,
        };
        Ok(Self { manager, runtime })
    }

    async fn rows(&self) -> Vec<Row> {
        let (boot, restore) = (self.boot().await, self.restore().await);
        let baseline = boot.as_ref().ok().map(|(boot, _)| boot.clone());
        let fork = self.fork().await.map(|(fork, _)| (fork, baseline));
        let (resident, private) = match self.memory().await {
            Ok((resident, private)) => (Ok((resident, None)), Ok((private, None))),
            Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
        };
        let measured = [boot, restore, fork, resident, private];
        let rows = plan().into_iter().zip(measured).map(|((name, unit, target), measured)| {
            let measured = measured.map_err(|error| format!("{error:#}"));
            Row { name, runtime: self.runtime, unit, target, measured }
        });
        rows.collect()
    }

    /// From the request for a sandbox to the end of its first command.
    async fn boot(&self) -> Measured {
        let boot = repeat(ROUNDS, || async {
            let id = self.manager.create().await?;
            self.first_command(&id).await
        });
        let boot = boot.await?;
        for id in self.manager.names("sandboxes")? {
            self.remove(&id).await?;
        }
        Ok((boot, None))
    }

    /// From the request to resume to the end of the first command.
    async fn restore(&self) -> Measured {
        let id = self.manager.create().await?;
        let mut restores = Vec::new();
        for _ in 0..ROUNDS {
            self.manager.done(&format!("POST /sandboxes/{id}/pause"), None).await?;
            let restore = super::measure::millis(|| async {
                self.manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
                self.first_command(&id).await
            });
            restores.push(restore.await?);
        }
        self.remove(&id).await?;
        Ok((Samples::new(restores)?, None))
    }

    /// From the request for a fork to the end of its first command; the original goes on.
    async fn fork(&self) -> Measured {
        let id = self.manager.create().await?;
        let forks = repeat(ROUNDS, || async {
            let made = self.manager.done(&format!("POST /sandboxes/{id}/fork"), Some(json!({}))).await?;
            self.first_command(id_of(&made)?).await
        });
        let forks = forks.await?;
        for id in self.manager.names("sandboxes")? {
            self.remove(&id).await?;
        }
        Ok((forks, None))
    }

    /// Resident and private memory of a monitor whose machine has just answered.
    async fn memory(&self) -> anyhow::Result<(Samples, Samples)> {
        let id = self.manager.create().await?;
        self.first_command(&id).await?;
        let process = self.manager.machine(&id).context("the machine runs")?;
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", process.as_raw_nonzero()));
        let (resident, private) = memory_of(&smaps.context("reading a monitor's memory")?);
        self.remove(&id).await?;
        Ok((Samples::single(resident), Samples::single(private)))
    }

    async fn first_command(&self, id: &str) -> anyhow::Result<()> {
        self.manager.run(id, "true").await.map(drop)
    }

    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.manager.done(&format!("DELETE /sandboxes/{id}"), None).await.map(drop)
    }
}

fn id_of(sandbox: &Value) -> anyhow::Result<&str> {
    sandbox["sandbox_id"].as_str().context("a sandbox has an id")
}

/// Returns the resident memory of a process, and the part of it that is private and changed, without the mapping of the
/// guest's memory; in MB, from `/proc/PID/smaps`.
fn memory_of(smaps: &str) -> (f64, f64) {
    let guest = f64::from(MEMORY_MB) * 1024.0;
    let (mut size, mut resident, mut private) = (0.0, 0.0, 0.0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let name = words.next();
        let kilobytes = words.next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        match name {
            Some("Size:") => size = kilobytes,
            Some("Rss:") => resident += kilobytes,
            Some("Private_Dirty:") if size < guest => private += kilobytes,
            _ => {}
        }
    }
    (resident / 1024.0, private / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_not_its_monitors() {
        let smaps = "7f00-7f01 rw-s 0 00:01 1 /memfd\nSize: 262144 kB\nRss: 102400 kB\nPrivate_Dirty: 102400 kB\n\
                     7f02-7f03 rw-p 0 00:00 0\nSize: 4096 kB\nRss: 2048 kB\nPrivate_Dirty: 1024 kB\n";
        assert_eq!(memory_of(smaps), (102.0, 1.0));
    }
}
