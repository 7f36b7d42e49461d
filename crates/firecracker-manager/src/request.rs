//! The requests of callers, and the checks of their values.

use std::{collections::BTreeMap, time::Duration};

use emergent_types::SnapshotId;

use crate::{SandboxError, SandboxId, record::NetworkWord};

/// The memory of a sandbox whose request names none, in MiB.
pub const DEFAULT_MEMORY_MB: u32 = 512;
/// The virtual CPUs of a sandbox whose request names none.
pub const DEFAULT_VCPUS: u8 = 1;
/// The size of the disks of a sandbox whose request names none, in MiB. Sparse: unused parts take no space.
pub const DEFAULT_DISK_MB: u64 = 10 * 1024;

/// The longest label, or name of a label, in bytes.
const LABEL_LIMIT: usize = 256;
/// The most labels.
const LABELS_LIMIT: usize = 32;
/// The longest life that can be asked for: ten years.
const TTL_LIMIT: Duration = Duration::from_secs(10 * 366 * 86_400);

/// A sandbox to make. Absent fields have defaults.
#[derive(Debug, Clone, Default)]
pub struct NewSandbox {
    /// The sandbox's id, if the caller needs a certain one.
    pub id: Option<SandboxId>,
    /// The caller's name for the sandbox. When there is a sandbox of this name already, it is resumed, and nothing is
    /// made.
    pub workspace_id: Option<String>,
    /// The template that the sandbox begins with.
    pub template: Option<String>,
    /// Memory, in MiB.
    pub memory_mb: Option<u32>,
    /// Virtual CPUs.
    pub vcpu_count: Option<u8>,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: Option<u64>,
    /// The most processes and threads that the sandbox's agent may have.
    pub pids: Option<u32>,
    /// The networks that the sandbox may reach; by default the internet if this service makes networks, else none.
    pub network: Option<NetworkWord>,
    /// The time for which the sandbox lives; the service's default when absent.
    pub ttl: Option<Duration>,
    /// The caller's labels for the sandbox.
    pub labels: BTreeMap<String, String>,
    /// Whether the caller hands the guest over itself.
    pub hand_over_later: bool,
    /// The snapshot that the sandbox begins with instead of the template.
    pub origin: Option<Origin>,
}

/// A snapshot to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The snapshot's id.
    pub snapshot: SnapshotId,
    /// Whether to boot from the snapshot's disks even if it has the state of processes, too.
    pub boot: bool,
}

// === impl NewSandbox ===

impl NewSandbox {
    /// Refuses values that are out of range.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`], which names the first such value.
    pub fn check(&self) -> Result<(), SandboxError> {
        let invalid = |field, message: &str| Err(SandboxError::Invalid { field, message: message.to_owned() });
        if let Some(name) = &self.workspace_id
            && (!(1..=LABEL_LIMIT).contains(&name.len()) || name.chars().any(char::is_control))
        {
            return invalid("workspace_id", "it takes 1 to 256 characters, none of them a control character");
        }
        if self.memory_mb.is_some_and(|memory| !(128..=1_048_576).contains(&memory)) {
            return invalid("memory_mb", "it takes 128 to 1048576 MiB");
        }
        if self.vcpu_count.is_some_and(|count| !(1..=32).contains(&count)) {
            return invalid("vcpu_count", "it takes 1 to 32");
        }
        if self.disk_mb.is_some_and(|disk| !(16..=1_048_576).contains(&disk)) {
            return invalid("disk_mb", "it takes 16 to 1048576 MiB");
        }
        if self.pids.is_some_and(|pids| !(1..=4_194_304).contains(&pids)) {
            return invalid("pids", "it takes 1 to 4194304");
        }
        if self.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > TTL_LIMIT) {
            return invalid("ttl_seconds", "it takes 1 to 316224000 seconds");
        }
        let short = |text: &String| text.len() <= LABEL_LIMIT;
        if self.labels.len() > LABELS_LIMIT || !self.labels.iter().all(|(name, value)| short(name) && short(value)) {
            return invalid("labels", "it takes 32 labels at most, of 256 bytes at most");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_sense_is_taken() {
        assert!(NewSandbox::default().check().is_ok());
        let field = |new: NewSandbox| match new.check() {
            Err(SandboxError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(NewSandbox { memory_mb: Some(1), ..NewSandbox::default() }), "memory_mb");
        assert_eq!(field(NewSandbox { vcpu_count: Some(0), ..NewSandbox::default() }), "vcpu_count");
        assert_eq!(field(NewSandbox { disk_mb: Some(1), ..NewSandbox::default() }), "disk_mb");
        assert_eq!(field(NewSandbox { workspace_id: Some(String::new()), ..NewSandbox::default() }), "workspace_id");
        assert_eq!(field(NewSandbox { ttl: Some(Duration::ZERO), ..NewSandbox::default() }), "ttl_seconds");
    }
}
