//! Snapshots of templates. The first sandbox of a kind boots, and its machine is saved on the way, when its guest has
//! answered and belongs to nobody yet. The next ones of the kind go on from there with disks, names, random numbers and
//! a network of their own, which takes a fraction of a boot.
//!
//! ```text
//!   create ─► snapshot of this kind? ─ yes ─► restore ─► ready
//!                    │ no          ▲                  │ fails: it is removed
//!                    ▼             │                  ▼
//!                   boot ─► save ──┘◄──────────────── boot ─► save ─► ready
//! ```

use emergent_types::error_chain;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use emergent_microvm::{Disk, Seal, durable};
use parking_lot::MutexGuard;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Inner,
    disk_files::{broken, copy_disk, keep_disk},
    entry::Entry,
    fresh_directory, place, remove_directory,
};
use crate::{
    SandboxError,
    record::{NetworkWord, Phase, Record, RootFormat},
    step::BootStep,
    template,
};

/// The version of the file's form, and of what machines are made of.
const VERSION: u32 = 3;
/// The name of a snapshot's description. Its time of change is that of its last use.
const NOTE: &str = "template.json";
/// The disks of a template's snapshot.
const ROOT: &str = "rootfs.ext4";
const DATA: &str = "data.ext4";

/// The properties of sandboxes that may begin with the same machine. What else has to fit (the monitor's version, the
/// processor, the length of every file) is in the manifest that the driver has written, and checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kind {
    version: u32,
    template: String,
    /// The fingerprint of the files that the template was made of.
    fingerprint: String,
    memory_mb: u32,
    vcpu_count: u8,
    disk_mb: u64,
    /// The limit of processes that the guest was told at its boot.
    pids: Option<u32>,
    has_network: bool,
    vmm: String,
}

/// A snapshot, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    kind: Kind,
    root_format: RootFormat,
    /// The seals of the disks when they were put here.
    disks: BTreeMap<String, Seal>,
}

/// The right to save a machine of a kind, which one has at a time.
struct Saving<'a> {
    inner: &'a Inner,
    key: String,
}

// === impl Kind ===

impl Kind {
    /// The name of the kind's directory: SHA-256 of all that it is, in hexadecimal.
    fn key(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(text))
    }
}

// === impl Inner ===

impl Inner {
    /// The kind of a sandbox; `None` where snapshots of templates are switched off.
    pub(super) fn kind(&self, record: &Record) -> Result<Option<Kind>, SandboxError> {
        if self.config.template_snapshots == 0 {
            return Ok(None);
        }
        let template = template::find(&self.layout, &record.template)?;
        let fingerprint = template.fingerprint();
        Ok(Some(Kind {
            version: VERSION,
            template: record.template.clone(),
            fingerprint: fingerprint.map_err(SandboxError::io("the reading of the template", &template.root))?,
            memory_mb: record.memory_mb,
            vcpu_count: record.vcpu_count,
            disk_mb: record.disk_mb,
            pids: record.pids,
            has_network: record.network != NetworkWord::None,
            vmm: self.vmm.kind().to_string(),
        }))
    }

    /// Has a sandbox go on from the snapshot of its kind. Answers whether it does: a machine that is not there, or
    /// not good, is none, and the sandbox then has nothing but its record, as before.
    pub(super) async fn begin_with_snapshot(&self, entry: &Entry, kind: &Kind) -> Result<bool, SandboxError> {
        let state = self.layout.template_snapshot(&kind.key());
        if !state.is_dir() {
            return Ok(false);
        }
        let Err(error) = self.restore_copy(entry, kind, &state).await else {
            tracing::debug!(sandbox = %entry.id, template = kind.template, "a sandbox began with its template's snapshot");
            return Ok(true);
        };
        tracing::warn!(
            sandbox = %entry.id, template = kind.template, reason = error_chain(&error),
            "the template's snapshot is not good and is removed; the sandbox boots instead"
        );
        if let Err(error) = remove_directory(&state).await {
            tracing::warn!(reason = error_chain(&error), "a template's snapshot is left");
        }
        entry.guest().suspend();
        self.vmm.end(&self.directory(entry)).await.map_err(SandboxError::vmm("end the machine"))?;
        fresh_directory(&self.directory(entry)).await?;
        self.record(entry, Phase::Creating, None)?;
        Ok(false)
    }

    async fn restore_copy(&self, entry: &Entry, kind: &Kind, state: &Path) -> Result<(), SandboxError> {
        let file = state.join(NOTE);
        let note = read(&file).map_err(SandboxError::io("the reading of a template's snapshot", &file))?;
        if note.kind != *kind {
            let other = io::Error::other("it is of another kind than its name says");
            return Err(SandboxError::io("the reading of a template's snapshot", &file)(other));
        }
        if let Some(reason) = broken(state, &note.disks).await? {
            return Err(SandboxError::io("the reading of a template's snapshot", &file)(io::Error::other(reason)));
        }
        // What is used is not the oldest. That it could not be noted harms nobody.
        File::open(&file).and_then(|file| file.set_modified(SystemTime::now())).ok();
        copy_disk(root_of(state, note.root_format), self.layout.root_disk(entry.id)).await?;
        copy_disk(Disk::raw(data_of(state)), self.layout.data_disk(entry.id)).await?;
        self.has_disks(entry, note.root_format).await?;
        self.restore(entry, &machine_of(state), true).await
    }

    /// Saves the machine of a sandbox that is nobody's yet, unless it was saved already or somebody is about it. The
    /// machine goes on, also when it could not be saved.
    ///
    /// # Errors
    /// When the machine does not go on.
    pub(super) async fn keep_snapshot(&self, entry: &Entry, kind: &Kind) -> Result<(), SandboxError> {
        let Some(saving) = Saving::begin(self, kind.key()) else { return Ok(()) };
        let (whole, partial) =
            (self.layout.template_snapshot(&saving.key), self.layout.saving_template_snapshot(&saving.key));
        if whole.exists() {
            return Ok(());
        }
        let saved = self.write_snapshot(entry, kind, &partial).await;
        // Before what has failed is looked at.
        self.thaw(entry).await?;
        let kept = match saved {
            Ok(()) => place(&partial, &whole).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(
                template = kind.template,
                reason = error_chain(&error),
                "the machine could not be saved for others of its template, which boot"
            );
            if let Err(error) = remove_directory(&partial).await {
                tracing::warn!(
                    reason = error_chain(&error),
                    "half a template's snapshot is left; the next start removes it"
                );
            }
        }
        drop(saving);
        self.remove_old_template_snapshots().await;
        self.pass(BootStep::SnapshotKept.name()).await;
        Ok(())
    }

    async fn write_snapshot(&self, entry: &Entry, kind: &Kind, into: &Path) -> Result<(), SandboxError> {
        fresh_directory(into).await?;
        fresh_directory(&machine_of(into)).await?;
        let frozen = self.vmm.freeze(&self.directory(entry)).await;
        frozen.map_err(SandboxError::vmm("freeze the machine"))?;
        let root_format = entry.record().root_format;
        let root = Disk { format: root_format.into(), ..Disk::raw(self.layout.root_disk(entry.id)) };
        let root = keep_disk(root, root_of(into, root_format).path).await?;
        let data = keep_disk(Disk::raw(self.layout.data_disk(entry.id)), data_of(into)).await?;
        let disks = [(ROOT.to_owned(), root), (DATA.to_owned(), data)].into();
        let saved = self.vmm.save(&self.directory(entry), &machine_of(into)).await;
        saved.map_err(|error| super::pause::saving(error, into))?;
        let file = into.join(NOTE);
        let note =
            serde_json::to_vec_pretty(&Manifest { kind: kind.clone(), root_format, disks }).map_err(io::Error::from);
        let written = note.and_then(|note| durable::write(&file, &note));
        written.map_err(SandboxError::io("the writing of a template's snapshot", &file))
    }

    /// Removes snapshots whose template is another by now, and of the others those that were not used for longest,
    /// where there are more than may be kept.
    pub(super) async fn remove_old_template_snapshots(&self) {
        let (mut current, mut old) = (Vec::new(), Vec::new());
        for state in self.template_snapshot_directories().into_iter().filter(|path| path.extension().is_none()) {
            let note = read(&state.join(NOTE)).ok().filter(|note| self.is_current(&note.kind));
            match note.and_then(|_| fs::metadata(state.join(NOTE)).ok()?.modified().ok()) {
                Some(used) => current.push((used, state)),
                None => old.push(state),
            }
        }
        current.sort();
        let surplus = current.len().saturating_sub(usize::from(self.config.template_snapshots));
        old.extend(current.into_iter().take(surplus).map(|(_, state)| state));
        for state in old {
            if let Err(error) = remove_directory(&state).await {
                tracing::warn!(reason = error_chain(&error), "a template's snapshot is left");
            }
        }
    }

    /// Removes what an earlier process did not save to the end. Nobody saves meanwhile.
    pub(super) async fn remove_partial_template_snapshots(&self) {
        for state in self.template_snapshot_directories().into_iter().filter(|path| path.extension().is_some()) {
            if let Err(error) = remove_directory(&state).await {
                tracing::warn!(reason = error_chain(&error), "half a template's snapshot is left");
            }
        }
    }

    fn is_current(&self, kind: &Kind) -> bool {
        let template = template::find(&self.layout, &kind.template).ok();
        let fingerprint = template.and_then(|template| template.fingerprint().ok());
        kind.version == VERSION
            && kind.vmm == self.vmm.kind().to_string()
            && fingerprint.is_some_and(|fingerprint| fingerprint == kind.fingerprint)
    }

    fn template_snapshot_directories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.layout.template_snapshots()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    fn lock_saving(&self) -> MutexGuard<'_, std::collections::HashSet<String>> {
        self.saving.lock()
    }
}

// === impl Saving ===

impl<'a> Saving<'a> {
    fn begin(inner: &'a Inner, key: String) -> Option<Self> {
        let is_first = inner.lock_saving().insert(key.clone());
        // Not made unless it holds: whoever drops one gives the right back.
        is_first.then(|| Self { inner, key })
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        self.inner.lock_saving().remove(&self.key);
    }
}

fn read(file: &Path) -> io::Result<Manifest> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn root_of(state: &Path, format: RootFormat) -> Disk {
    Disk { format: format.into(), ..Disk::raw(state.join(ROOT)) }
}

fn data_of(state: &Path) -> PathBuf {
    state.join(DATA)
}

fn machine_of(state: &Path) -> PathBuf {
    state.join("state")
}
