//! The bodies of the API's requests and answers. The provider of remote sandboxes reads and writes the same types.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Capacity, NetworkWord, NewSandbox, NewSnapshot, Origin, Phase, Record, SnapshotInfo};

/// A sandbox to make. Absent fields have defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateBody {
    /// The template that the sandbox begins with; `default` by default.
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
    /// The most processes and threads that the sandbox's agent may have.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// The caller's name for the sandbox; a create with the name of an existing sandbox resumes that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The sandbox's id, for a caller that needs a certain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<Uuid>,
    /// The networks that the sandbox may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkWord>,
    /// Seconds until the sandbox is removed.
    #[serde(deserialize_with = "emergent_guest_proto::whole::option", skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The caller's labels for the sandbox.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The snapshot that the sandbox begins with instead of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// Whether to begin with the files of the snapshot alone, without its processes.
    #[serde(skip_serializing_if = "is_false")]
    pub boot: bool,
    /// Whether the caller hands the guest over itself.
    #[serde(skip_serializing_if = "is_false")]
    pub hand_over_later: bool,
}

/// The templates that sandboxes can begin with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TemplatesBody {
    /// The names of all templates, sorted.
    pub templates: Vec<String>,
    /// By name, the fingerprints that tell a template from an earlier one of the same name; only of templates that a
    /// machine can boot.
    #[serde(default)]
    pub fingerprints: BTreeMap<String, String>,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxBody {
    /// The sandbox's id.
    pub sandbox_id: Uuid,
    /// The caller's name for the sandbox; the id if the caller gave none.
    pub workspace_id: Option<String>,
    /// The phase of the sandbox's life.
    pub status: Phase,
    /// The reason why the sandbox stopped without a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The template that the sandbox was made from.
    pub template: String,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpu_count: u8,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: u64,
    /// The networks that the sandbox may reach.
    pub network: NetworkWord,
    /// The labels that its creator gave the sandbox.
    pub labels: BTreeMap<String, String>,
    /// When the sandbox was made.
    pub created_at: DateTime<Utc>,
    /// When the sandbox is removed.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A snapshot to take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotRequestBody {
    /// The snapshot's id, for a caller that needs a certain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// Whether to keep the processes, too; true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
    /// The caller's labels for the snapshot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotBody {
    /// The snapshot's id.
    pub snapshot_id: Uuid,
    /// The id of the snapshot's sandbox.
    pub sandbox_id: Uuid,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// Whether the snapshot has processes, besides files.
    pub memory: bool,
    /// The template that the sandbox was made from.
    pub template: String,
    /// The labels that its creator gave the snapshot.
    pub labels: BTreeMap<String, String>,
    /// Bytes that the root disk takes on the host.
    pub root_bytes: u64,
    /// Bytes that the disk for `/workspace` takes on the host.
    pub workspace_bytes: u64,
}

/// The state of the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthBody {
    /// `healthy` or `unhealthy`.
    pub status: String,
    /// The driver that runs machines.
    pub driver: String,
    /// `kvm` or `emulated`; absent when no machine can be run.
    pub acceleration: Option<String>,
    /// The driver's version.
    pub version: Option<String>,
    /// The reason why no machine can be run, and a remedy.
    pub reason: Option<String>,
    /// Warnings about weak isolation and missing networks.
    pub warnings: Vec<String>,
    /// Whether sandboxes can have a network.
    pub network: bool,
}

/// The capacity of the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapacityBody {
    /// Machines that run or are being started.
    pub running: usize,
    /// The number of all sandboxes.
    pub sandboxes: usize,
    /// The most machines that may run at once.
    pub max_running: usize,
    /// Memory of running machines, in MiB.
    pub memory_used_mb: u64,
    /// The most memory that all running machines may have, in MiB.
    pub memory_limit_mb: u64,
    /// Memory that is available on the host, in MiB.
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
