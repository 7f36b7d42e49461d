//! What the API takes and answers. The provider of remote sandboxes reads and writes the same types.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Capacity, NetworkWord, NewSandbox, NewSnapshot, Origin, Phase, Record, SnapshotInfo};

/// A sandbox to make. What is absent has a default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateBody {
    /// What it begins with; `default` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Memory, in MiB.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Virtual CPUs.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub vcpu_count: Option<u8>,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Processes and threads that its agent may have.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// The caller's name for it; a create with the name of one that is there resumes that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// Its id, for a caller that needs a certain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<Uuid>,
    /// What it may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkWord>,
    /// Seconds until it is removed.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What the caller writes on it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The snapshot that it begins with instead of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// Begin with the files of the snapshot alone, without its processes.
    #[serde(skip_serializing_if = "is_false")]
    pub boot: bool,
    /// The caller hands the guest over itself.
    #[serde(skip_serializing_if = "is_false")]
    pub hand_over_later: bool,
}

/// What sandboxes can begin with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TemplatesBody {
    /// The names of all templates, sorted.
    pub templates: Vec<String>,
    /// By name, what tells a template from what had its name before; of those that a machine can boot.
    #[serde(default)]
    pub fingerprints: BTreeMap<String, String>,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxBody {
    /// Its id.
    pub sandbox_id: Uuid,
    /// The caller's name for it; its id where the caller gave none.
    pub workspace_id: Option<String>,
    /// Where in its life it is.
    pub status: Phase,
    /// Why it is stopped though nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it was made from.
    pub template: String,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpu_count: u8,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: u64,
    /// What it may reach.
    pub network: NetworkWord,
    /// What its creator wrote on it.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it is removed.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A snapshot to take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotRequestBody {
    /// Its id, for a caller that needs a certain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// Keep the processes, too; true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
    /// What the caller writes on it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotBody {
    /// Its id.
    pub snapshot_id: Uuid,
    /// Of which sandbox.
    pub sandbox_id: Uuid,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// It has processes, besides files.
    pub memory: bool,
    /// What the sandbox was made from.
    pub template: String,
    /// What its taker wrote on it.
    pub labels: BTreeMap<String, String>,
    /// Bytes that its root disk takes on the host.
    pub root_bytes: u64,
    /// Bytes that its disk for `/workspace` takes on the host.
    pub workspace_bytes: u64,
}

/// How the service is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthBody {
    /// `healthy` or `unhealthy`.
    pub status: String,
    /// What runs machines.
    pub driver: String,
    /// `kvm` or `emulated`; absent when no machine can be run.
    pub acceleration: Option<String>,
    /// The driver's version.
    pub version: Option<String>,
    /// Why no machine can be run, and what to do.
    pub reason: Option<String>,
    /// What is weaker than it could be.
    pub warnings: Vec<String>,
    /// Whether sandboxes can have a network.
    pub network: bool,
}

/// How much room there is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapacityBody {
    /// Machines that run or are being started.
    pub running: usize,
    /// Sandboxes in all.
    pub sandboxes: usize,
    /// Machines at once.
    pub max_running: usize,
    /// Memory of those that run, in MiB.
    pub memory_used_mb: u64,
    /// Memory of all that may run, in MiB.
    pub memory_limit_mb: u64,
    /// Memory that the host has left, in MiB.
    pub memory_available_mb: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

// === conversions ===

impl From<BTreeMap<String, Option<String>>> for TemplatesBody {
    fn from(all: BTreeMap<String, Option<String>>) -> Self {
        let templates = all.keys().cloned().collect();
        Self { templates, fingerprints: all.into_iter().filter_map(|(name, its)| Some((name, its?))).collect() }
    }
}

impl From<CreateBody> for NewSandbox {
    fn from(body: CreateBody) -> Self {
        Self {
            id: body.sandbox_id.map(Into::into),
            workspace_id: body.workspace_id,
            template: body.template,
            memory_mb: body.memory_mb,
            vcpu_count: body.vcpu_count,
            disk_mb: body.disk_mb,
            pids: body.pids,
            network: body.network,
            ttl: body.ttl_seconds.map(Duration::from_secs),
            labels: body.labels,
            hand_over_later: body.hand_over_later,
            origin: body.snapshot_id.map(|id| Origin { snapshot: id.into(), boot: body.boot }),
        }
    }
}

impl From<Record> for SandboxBody {
    fn from(record: Record) -> Self {
        let id = record.id();
        Self {
            sandbox_id: id.as_uuid(),
            workspace_id: Some(record.workspace_id.unwrap_or_else(|| id.to_string())),
            status: record.phase,
            reason: record.reason,
            template: record.template,
            memory_mb: record.memory_mb,
            vcpu_count: record.vcpu_count,
            disk_mb: record.disk_mb,
            network: record.network,
            labels: record.labels,
            created_at: record.created_at,
            expires_at: record.expires_at,
        }
    }
}

impl From<SnapshotRequestBody> for NewSnapshot {
    fn from(body: SnapshotRequestBody) -> Self {
        Self { id: body.snapshot_id.map(Into::into), memory: body.memory.unwrap_or(true), labels: body.labels }
    }
}

impl From<SnapshotInfo> for SnapshotBody {
    fn from(info: SnapshotInfo) -> Self {
        Self {
            snapshot_id: info.snapshot_id,
            sandbox_id: info.sandbox_id,
            created_at: info.created_at,
            memory: info.memory,
            template: info.template,
            labels: info.labels,
            root_bytes: info.root_bytes,
            workspace_bytes: info.workspace_bytes,
        }
    }
}

impl From<Capacity> for CapacityBody {
    fn from(capacity: Capacity) -> Self {
        Self {
            running: capacity.running,
            sandboxes: capacity.sandboxes,
            max_running: capacity.limit,
            memory_used_mb: capacity.memory_used_mib,
            memory_limit_mb: capacity.memory_limit_mib,
            memory_available_mb: capacity.memory_available_mib,
        }
    }
}
