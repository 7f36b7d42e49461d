//! What a caller asks for, checked.

use std::{collections::BTreeMap, time::Duration};

use emergent_provider::SnapshotId;

use crate::{SandboxError, SandboxId, record::NetworkWord};

/// Memory when nobody says, in MiB.
pub const DEFAULT_MEMORY_MB: u32 = 512;
/// Virtual CPUs when nobody says.
pub const DEFAULT_VCPUS: u8 = 1;
/// The disks when nobody says, in MiB. Sparse: what is not used takes no space.
pub const DEFAULT_DISK_MB: u64 = 10 * 1024;

/// The longest label, or name of one.
const LABEL_LIMIT: usize = 256;
/// How many labels there may be.
const LABELS_LIMIT: usize = 32;
/// The longest life that can be asked for: ten years.
const TTL_LIMIT: Duration = Duration::from_secs(10 * 366 * 86_400);

/// A sandbox to make. What is absent has a default.
#[derive(Debug, Clone, Default)]
pub struct NewSandbox {
    /// Its id, where the caller needs a certain one.
    pub id: Option<SandboxId>,
    /// What the caller calls it. When there is a sandbox of this name already, it is resumed, and nothing is made.
    pub workspace_id: Option<String>,
    /// What it begins with.
    pub template: Option<String>,
    /// Memory, in MiB.
    pub memory_mb: Option<u32>,
    /// Virtual CPUs.
    pub vcpu_count: Option<u8>,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: Option<u64>,
    /// Processes and threads that its agent may have.
    pub pids: Option<u32>,
    /// What it may reach; by default the internet where this service makes networks, else nothing.
    pub network: Option<NetworkWord>,
    /// How long it lives; the service's default when absent.
    pub ttl: Option<Duration>,
    /// What the caller writes on it.
    pub labels: BTreeMap<String, String>,
    /// The caller hands the guest over itself.
    pub hand_over_later: bool,
    /// The snapshot that it begins with instead of the template.
    pub origin: Option<Origin>,
}

/// A snapshot to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which one.
    pub snapshot: SnapshotId,
    /// Boot from its disks even if it has the state of processes, too.
    pub boot: bool,
}

// === impl NewSandbox ===

impl NewSandbox {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`], naming the first of them.
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
