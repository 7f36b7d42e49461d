//! A sandbox's record, `state.json`: what is wanted of it and what it is.
//!
//! ```text
//!   creating ──► ready ──► pausing ──► paused ──► resuming ──► ready
//!      │          │  ▲                    │
//!      ▼          ▼  └── starting ◄──┐    │       any ──► destroying ──► nothing is left
//!   nothing    stopping ──► stopped ─┘ ◄──┘
//! ```
//!
//! The phases that end in -ing are intents: a process that finds one at its start knows what an earlier one was about.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use chrono::{DateTime, Utc};
use emergent_microvm::DiskFormat;
use emergent_types::NetworkPolicy;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::SandboxId;

/// The version of the file's form.
const VERSION: u32 = 1;

/// A sandbox's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    sandbox_id: Uuid,
    /// The caller's name for the sandbox; a create with the same name resumes this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The template that the sandbox was made from.
    pub template: String,
    /// Memory of the guest, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpu_count: u8,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: u64,
    /// Processes and threads that its agent may have; absent: what the guest's kernel allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// How its root disk is written.
    #[serde(default)]
    pub root_format: RootFormat,
    /// The network that the sandbox may reach.
    pub network: NetworkWord,
    /// Whether the creator hands the guest over, and not this service.
    #[serde(default)]
    pub hand_over_later: bool,
    /// The creator's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it is removed; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The sandbox's phase.
    pub phase: Phase,
    /// The guest did not write its caches to its disks before the sandbox was paused last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsynced: bool,
    /// The boot of the host in which its phase was recorded, as the kernel names it; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_boot: Option<Uuid>,
    /// The reason why the sandbox is stopped though nobody asked for it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The phase of a sandbox's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The sandbox is being made.
    Creating,
    /// The sandbox's machine runs.
    Ready,
    /// The machine's state is being written to disk.
    Pausing,
    /// The machine's state is on disk, and no machine runs.
    Paused,
    /// A machine is being made from its state.
    Resuming,
    /// The sandbox's machine is being ended.
    Stopping,
    /// The sandbox has its disks, and no machine runs.
    Stopped,
    /// A machine is being booted from its disks.
    Starting,
    /// The sandbox is being removed.
    Destroying,
}

/// [`NetworkPolicy`], as it is written in records and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkWord {
    /// Loopback only.
    None,
    /// An interface, but nothing beyond it.
    Isolated,
    /// The internet.
    #[default]
    Outbound,
}

/// [`DiskFormat`], as it is written in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFormat {
    /// Byte for byte.
    #[default]
    Raw,
    /// An overlay over its template.
    Qcow2,
}

/// A record that was found.
#[derive(Debug)]
pub enum RecordLookup {
    /// One that can be read.
    Record(Box<Record>),
    /// There is none: its maker was cut short before anything else was made, or its remover after everything else.
    Nothing,
}

/// The reason for which a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the record cannot be read")]
    Io(#[from] io::Error),
    /// The file is no record of this program.
    #[error("the record is not one that this version writes")]
    Malformed(#[source] serde_json::Error),
    /// Another version wrote it, or it was copied from another sandbox.
    #[error("the record is of version {version} and sandbox {sandbox}")]
    Foreign {
        /// The record's version.
        version: u32,
        /// The sandbox that the record names.
        sandbox: Uuid,
    },
}

// === impl Record ===

impl Record {
    /// A record of a sandbox that is to be made, or that starts with the state of another.
    pub fn new(id: SandboxId, template: String, created_at: DateTime<Utc>) -> Self {
        Self {
            version: VERSION,
            sandbox_id: id.as_uuid(),
            workspace_id: None,
            template,
            memory_mb: 512,
            vcpu_count: 1,
            disk_mb: 1024,
            pids: None,
            root_format: RootFormat::default(),
            network: NetworkWord::default(),
            hand_over_later: false,
            labels: BTreeMap::new(),
            created_at,
            expires_at: None,
            phase: Phase::Creating,
            unsynced: false,
            host_boot: None,
            reason: None,
        }
    }

    /// The id of the record's sandbox.
    pub fn id(&self) -> SandboxId {
        self.sandbox_id.into()
    }

    /// Reads the record of `id` in `path`.
    ///
    /// # Errors
    /// [`ReadError`]: the sandbox must then be left alone, since what it is cannot be known.
    pub fn read(path: &Path, id: SandboxId) -> Result<RecordLookup, ReadError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RecordLookup::Nothing),
            Err(error) => return Err(error.into()),
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(ReadError::Malformed)?;
        if record.version != VERSION || record.id() != id {
            return Err(ReadError::Foreign { version: record.version, sandbox: record.sandbox_id });
        }
        Ok(RecordLookup::Record(Box::new(record)))
    }

    /// Writes it: whole or not at all, and on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the one that was there still is.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("json.new");
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

// === impl Phase ===

impl Phase {
    /// The word for it in records and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Destroying => "destroying",
        }
    }
}

// === impl NetworkWord ===

impl From<NetworkPolicy> for NetworkWord {
    fn from(policy: NetworkPolicy) -> Self {
        match policy {
            NetworkPolicy::None => Self::None,
            NetworkPolicy::Isolated => Self::Isolated,
            NetworkPolicy::Outbound => Self::Outbound,
        }
    }
}

// === impl RootFormat ===

impl From<DiskFormat> for RootFormat {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Raw => Self::Raw,
            DiskFormat::Qcow2 => Self::Qcow2,
        }
    }
}

impl From<RootFormat> for DiskFormat {
    fn from(format: RootFormat) -> Self {
        match format {
            RootFormat::Raw => Self::Raw,
            RootFormat::Qcow2 => Self::Qcow2,
        }
    }
}

impl From<NetworkWord> for NetworkPolicy {
    fn from(word: NetworkWord) -> Self {
        match word {
            NetworkWord::None => Self::None,
            NetworkWord::Isolated => Self::Isolated,
            NetworkWord::Outbound => Self::Outbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let id = SandboxId::generate();
        let mut record = Record::new(id, "default".to_owned(), Utc::now());
        record.workspace_id = Some("mine".to_owned());
        record.write(&path).unwrap();
        record.phase = Phase::Ready;
        record.write(&path).unwrap();
        let RecordLookup::Record(read) = Record::read(&path, id).unwrap() else { panic!("it is there") };
        assert_eq!(*read, record);
    }

    #[test]
    fn another_sandboxs_record_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        Record::new(SandboxId::generate(), "default".to_owned(), Utc::now()).write(&path).unwrap();
        assert!(matches!(Record::read(&path, SandboxId::generate()), Err(ReadError::Foreign { .. })));
    }

    #[test]
    fn half_a_record_is_an_error_and_no_record_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert!(matches!(Record::read(&path, SandboxId::generate()), Ok(RecordLookup::Nothing)));
        std::fs::write(&path, "{\"version\": 1, \"sand").unwrap();
        assert!(matches!(Record::read(&path, SandboxId::generate()), Err(ReadError::Malformed(_))));
    }
}
