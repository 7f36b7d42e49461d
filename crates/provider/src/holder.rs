//! Holders: which process acts for a server on an engine, as the engine itself knows it.
//!
//! A copy of a server's data has the same server id, and its rows speak of the same sandboxes. The engine is the one
//! place that the copy and the original share, so the holder is recorded there: numbered records, of which the newest
//! counts. A process adds one at each beat; of two that add the same number at once one is told that it was too late.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use emergent_types::ServerId;

use crate::OperationError;

/// The time for which a holder counts as alive after its last record.
pub const HOLDER_ALIVE: Duration = Duration::from_secs(30);

const DIRECTORY: &str = "emergent.holder.directory";
const BOOT: &str = "emergent.holder.boot";
const DEVICE: &str = "emergent.holder.device";
const PROCESS: &str = "emergent.holder.process";
const HOST: &str = "emergent.holder.host";
const PATH: &str = "emergent.holder.path";
const NUMBER: &str = "emergent.holder.number";
const ENDED: &str = "emergent.holder.ended";

/// A process that acts for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Names the process's data directory: the same over restarts, reboots and moves, another for a copy.
    pub directory: String,
    /// Names the boot of the host under which the process runs.
    pub boot: String,
    /// Names the file system of the data directory, as that boot has it.
    pub device: String,
    /// Names the process.
    pub process: Uuid,
    /// The name of its host, for people.
    pub host: String,
    /// The path of its data directory, for people.
    pub path: String,
}

/// One record of a holder in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderRecord {
    /// For which server it acts.
    pub server: ServerId,
    /// The server that acts.
    pub holder: Holder,
    /// Counts the records of the server; the greatest number is the newest.
    pub number: u64,
    /// The process has ended in order.
    pub ended: bool,
    /// When it was recorded, by the engine's clock.
    pub at: DateTime<Utc>,
}

/// Keeps records of holders. A provider whose engine cannot keep any leaves the methods as they are: every process may
/// then act.
#[async_trait]
pub trait Holders: Send + Sync {
    /// The newest record of each server that has one.
    async fn holders(&self) -> Result<Vec<HolderRecord>, OperationError> {
        Ok(Vec::new())
    }

    /// Adds a record, and removes the server's older ones. False: there is another process's record with that number,
    /// or a greater one, and nothing was changed. `at` is the engine's to say.
    async fn record_holder(&self, _record: &HolderRecord) -> Result<bool, OperationError> {
        Ok(true)
    }

    /// Removes the server's records. Called when a process ends whose server has nothing left on this engine.
    async fn forget_holder(&self, _server: ServerId) -> Result<(), OperationError> {
        Ok(())
    }

    /// The engine's clock.
    async fn engine_time(&self) -> Result<DateTime<Utc>, OperationError> {
        Ok(Utc::now())
    }

    /// Says again that this process acts for its server. To be called every third of [`HOLDER_ALIVE`].
    ///
    /// # Errors
    /// [`OperationError::Refused`] when another process does: this one must do nothing more.
    async fn hold(&self) -> Result<(), OperationError> {
        Ok(())
    }

    /// Removes what only a process of this server needed while it ran, such as the container of a probe. Called when a
    /// process has become the holder, before it does anything else, and when it ends.
    async fn remove_helpers(&self) -> Result<(), OperationError> {
        Ok(())
    }
}

// === impl Holder ===

impl Holder {
    /// Whether the lock on the data directory keeps two processes from running at once, so that the other one has
    /// ended.
    pub fn excludes(&self, other: &Self) -> bool {
        self.directory == other.directory && self.boot == other.boot && self.device == other.device
    }
}

// === impl HolderRecord ===

impl HolderRecord {
    /// The labels that say all of it but the server and the time.
    pub fn to_labels(&self) -> [(String, String); 8] {
        let Holder { directory, boot, device, process, host, path } = &self.holder;
        [
            (DIRECTORY, directory.clone()),
            (BOOT, boot.clone()),
            (DEVICE, device.clone()),
            (PROCESS, process.to_string()),
            (HOST, host.clone()),
            (PATH, path.clone()),
            (NUMBER, self.number.to_string()),
            (ENDED, self.ended.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Reads them; `None` when they are not whole.
    pub fn from_labels<'a>(
        server: ServerId,
        at: DateTime<Utc>,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Option<Self> {
        let (mut directory, mut boot, mut device, mut process) = (None, None, None, None);
        let (mut host, mut path, mut number, mut ended) = (None, None, None, None);
        for (name, value) in labels {
            match name.as_str() {
                DIRECTORY => directory = Some(value.clone()),
                BOOT => boot = Some(value.clone()),
                DEVICE => device = Some(value.clone()),
                PROCESS => process = value.parse().ok(),
                HOST => host = Some(value.clone()),
                PATH => path = Some(value.clone()),
                NUMBER => number = value.parse().ok(),
                ENDED => ended = value.parse().ok(),
                _ => {}
            }
        }
        let holder =
            Holder { directory: directory?, boot: boot?, device: device?, process: process?, host: host?, path: path? };
        Some(Self { server, holder, number: number?, ended: ended?, at })
    }

    /// Whether the process may still run, when the engine's clock says `now`.
    pub fn may_be_alive(&self, now: DateTime<Utc>) -> bool {
        // A record from the future is of a clock that was set back.
        let age = (now - self.at).to_std().unwrap_or_default();
        !self.ended && age < HOLDER_ALIVE
    }
}

/// The newest record of each server among many.
pub fn newest_of_each(records: impl IntoIterator<Item = HolderRecord>) -> Vec<HolderRecord> {
    let mut newest = std::collections::BTreeMap::<ServerId, HolderRecord>::new();
    for record in records {
        if newest.get(&record.server).is_none_or(|known| known.number < record.number) {
            newest.insert(record.server, record);
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn record(number: u64) -> HolderRecord {
        let holder = Holder {
            directory: "7:1".to_owned(),
            boot: "boot".to_owned(),
            device: "8".to_owned(),
            process: Uuid::new_v4(),
            host: "host".to_owned(),
            path: "/var/lib/emergent".to_owned(),
        };
        HolderRecord { server: ServerId::generate(), holder, number, ended: false, at: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn labels_say_all_of_a_record_again() {
        let record = record(12);
        let labels = HashMap::from(record.to_labels());
        assert_eq!(HolderRecord::from_labels(record.server, record.at, &labels), Some(record.clone()));
        let torn = labels.into_iter().filter(|(name, _)| name != PROCESS).collect::<HashMap<_, _>>();
        assert_eq!(HolderRecord::from_labels(record.server, record.at, &torn), None);
    }

    #[test]
    fn a_holder_is_alive_until_it_has_not_been_heard_of_for_a_while_or_has_ended() {
        let record = record(1);
        let after = |seconds| record.at + chrono::TimeDelta::seconds(seconds);
        assert!(record.may_be_alive(after(0)) && record.may_be_alive(after(29)) && record.may_be_alive(after(-60)));
        assert!(!record.may_be_alive(after(31)));
        assert!(!HolderRecord { ended: true, ..record.clone() }.may_be_alive(after(0)));
    }

    #[test]
    fn the_greatest_number_of_a_server_is_its_newest_record() {
        let (old, other) = (record(9), record(1));
        let new = HolderRecord { number: 10, ..old.clone() };
        let newest = newest_of_each([new.clone(), old, other.clone()]);
        assert!(newest.len() == 2 && newest.contains(&new) && newest.contains(&other));
    }
}
