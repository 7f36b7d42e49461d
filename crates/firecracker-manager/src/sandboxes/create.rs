//! Making a sandbox.

use emergent_types::error_chain;
use std::{path::Path, sync::Arc};

use chrono::Utc;
use emergent_microvm::{Disk, MachineState, disks};

use super::{
    Inner, Sandboxes,
    copy::Basis,
    disk_files::{blocking, copy_disk},
    entry::{Entry, SandboxGuard},
    fresh_directory, remove_directory,
};
use crate::{
    SandboxError, SandboxId,
    record::{NetworkWord, Phase, Record, RootFormat},
    request::{DEFAULT_DISK_MB, DEFAULT_MEMORY_MB, DEFAULT_VCPUS, NewSandbox},
    step::BootStep,
    template,
};

/// The result of a create.
enum Reservation {
    /// A new sandbox is to be made here. Its turn is taken before anybody else sees it, so that nobody takes one that
    /// is being made for one that was left half-made.
    New(Arc<Entry>, SandboxGuard),
    /// There is one of this name.
    Known(SandboxId),
}

// === impl Sandboxes ===

impl Sandboxes {
    /// Makes a sandbox, or resumes the one of the same `workspace_id`; answers whether it made one. On an error nothing
    /// is left behind.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn create(&self, new: NewSandbox) -> Result<(Record, bool), SandboxError> {
        new.check()?;
        let basis = match new.origin {
            Some(origin) => Some(self.basis(origin)?),
            None => None,
        };
        let record = self.0.plan(&new, basis.as_ref())?;
        let (entry, turn) = match self.0.enter(record)? {
            Reservation::Known(id) => return self.resume(id).await.map(|record| (record, false)),
            Reservation::New(entry, turn) => (entry, turn),
        };
        let inner = Arc::clone(&self.0);
        let made = self.run(async move {
            let _turn = turn;
            match inner.make(&entry, basis.as_ref()).await {
                Ok(()) => Ok(entry.record()),
                Err(error) => {
                    tracing::warn!(sandbox = %entry.id, reason = error_chain(&error), "a sandbox could not be made");
                    inner.undo(&entry).await;
                    Err(error)
                }
            }
        });
        made.await.map(|record| (record, true))
    }
}

// === impl Inner ===

impl Inner {
    /// The record of what is asked for.
    fn plan(&self, new: &NewSandbox, basis: Option<&Basis>) -> Result<Record, SandboxError> {
        let inherited = basis.map(Basis::info);
        let name = new.template.clone().or_else(|| inherited.map(|it| it.template.clone()));
        let name = name.unwrap_or_else(|| template::DEFAULT.to_owned());
        template::find(&self.layout, &name)?;
        let id = new.id.unwrap_or_else(SandboxId::generate);
        let mut record = Record::new(id, name, Utc::now());
        record.workspace_id.clone_from(&new.workspace_id);
        record.memory_mb = new.memory_mb.or(inherited.map(|it| it.memory_mb)).unwrap_or(DEFAULT_MEMORY_MB);
        record.vcpu_count = new.vcpu_count.or(inherited.map(|it| it.vcpu_count)).unwrap_or(DEFAULT_VCPUS);
        // Disks become larger and never smaller.
        record.disk_mb = new.disk_mb.max(inherited.map(|it| it.disk_mb)).unwrap_or(DEFAULT_DISK_MB);
        record.pids = new.pids;
        record.network = new.network.unwrap_or_else(|| match self.network.unavailable() {
            Some(_) => NetworkWord::None,
            None => inherited.map_or(NetworkWord::Outbound, |it| it.network),
        });
        if record.network != NetworkWord::None
            && let Some(reason) = self.network.unavailable()
        {
            let message = format!("no sandbox can have a network here: {reason}; ask for \"none\"");
            return Err(SandboxError::Invalid { field: "network", message });
        }
        if let Some(basis) = basis.filter(|basis| basis.has_state()) {
            let info = basis.info();
            if (record.memory_mb, record.vcpu_count) != (info.memory_mb, info.vcpu_count) {
                let message = format!(
                    "a snapshot with the state of processes goes on with its {} MiB and {} CPUs; leave memory_mb and \
                     vcpu_count out, or set boot",
                    info.memory_mb, info.vcpu_count
                );
                return Err(SandboxError::Invalid { field: "memory_mb", message });
            }
            if record.disk_mb != info.disk_mb {
                let message = format!(
                    "a snapshot with the state of processes goes on with disks of {} MiB; leave disk_mb out, or set boot",
                    info.disk_mb
                );
                return Err(SandboxError::Invalid { field: "disk_mb", message });
            }
            if (record.network == NetworkWord::None) != (info.network == NetworkWord::None) {
                let message =
                    "a snapshot with the state of processes keeps its network interface, or the lack of one; \
                               leave network out, or set boot"
                        .to_owned();
                return Err(SandboxError::Invalid { field: "network", message });
            }
        }
        record.hand_over_later = new.hand_over_later;
        record.labels.clone_from(&new.labels);
        let ttl = new.ttl.or(self.config.default_ttl).and_then(|ttl| chrono::Duration::from_std(ttl).ok());
        record.expires_at = ttl.and_then(|ttl| record.created_at.checked_add_signed(ttl));
        Ok(record)
    }

    /// Enters a sandbox, with its place, unless there is one of the same name. One look under one lock: of two that
    /// come at once with the same name or for the last place, one is first.
    fn enter(&self, record: Record) -> Result<Reservation, SandboxError> {
        let id = record.id();
        let mut entries = self.lock_entries();
        // One that was given no name has its id for one.
        let has = |entry: &&Arc<Entry>, name: &String| match &entry.record().workspace_id {
            Some(own) => own == name,
            None => entry.id.to_string() == *name,
        };
        if let Some(name) = &record.workspace_id
            && let Some(known) = entries.values().find(|entry| has(entry, name))
        {
            return Ok(Reservation::Known(known.id));
        }
        if entries.contains_key(&id) {
            return Err(SandboxError::Taken(format!("there is a sandbox {id} already")));
        }
        let entry = Arc::new(Entry::new(record, Arc::clone(&self.vmm), self.layout.sandbox(id)));
        let turn = entry.try_turn().expect("nobody else has seen it");
        self.take_place(&entry)?;
        entries.insert(id, Arc::clone(&entry));
        Ok(Reservation::New(entry, turn))
    }

    async fn make(&self, entry: &Entry, basis: Option<&Basis>) -> Result<(), SandboxError> {
        fresh_directory(&self.directory(entry)).await?;
        self.record(entry, Phase::Creating, None)?;
        self.pass(BootStep::IntentRecorded.name()).await;
        match basis {
            Some(basis) => self.make_from_snapshot(entry, basis).await,
            None => self.make_from_template(entry).await,
        }
    }

    async fn make_from_snapshot(&self, entry: &Entry, basis: &Basis) -> Result<(), SandboxError> {
        basis.check().await?;
        copy_disk(basis.disk(), self.layout.root_disk(entry.id)).await?;
        copy_disk(Disk::raw(basis.data()), self.layout.data_disk(entry.id)).await?;
        self.has_disks(entry, basis.info().root_format).await?;
        match basis.state() {
            Some(state) => self.restore(entry, &state, true).await?,
            None => {
                self.grow_disks(entry).await?;
                return self.boot(entry).await;
            }
        }
        self.record(entry, Phase::Ready, None)?;
        self.pass(BootStep::ReadyRecorded.name()).await;
        Ok(())
    }

    /// Goes on from the template's snapshot where there is a good one, and boots otherwise.
    async fn make_from_template(&self, entry: &Entry) -> Result<(), SandboxError> {
        let kind = self.kind(&entry.record())?;
        if let Some(kind) = &kind
            && self.begin_with_snapshot(entry, kind).await?
        {
            return self.make_ready(entry).await;
        }
        let format = self.make_disks(entry).await?;
        self.has_disks(entry, format).await?;
        self.boot_machine(entry).await?;
        if let Some(kind) = &kind {
            self.keep_snapshot(entry, kind).await?;
        }
        self.make_ready(entry).await
    }

    /// Records how the root disk is written, which whoever finds the sandbox has to know.
    pub(super) async fn has_disks(&self, entry: &Entry, root_format: RootFormat) -> Result<(), SandboxError> {
        let mut record = entry.record();
        record.root_format = root_format;
        entry.set_record(record);
        self.record(entry, Phase::Creating, None)?;
        self.pass(BootStep::DisksMade.name()).await;
        Ok(())
    }

    /// Makes the disks of a sandbox from its template; answers the form of the first.
    async fn make_disks(&self, entry: &Entry) -> Result<RootFormat, SandboxError> {
        let (record, vmm) = (entry.record(), self.vmm.kind());
        let template = template::find(&self.layout, &record.template)?;
        let (root, data) = (self.layout.root_disk(entry.id), self.layout.data_disk(entry.id));
        let pinned = template::pinned(&self.layout, &template.root);
        let pinned = pinned.map_err(SandboxError::io("the linking of the template", &template.root))?;
        blocking(move || {
            let (root, _) = disks::from_image(&pinned, &root, vmm)?;
            disks::grow(&root, record.disk_mb << 20)?;
            disks::empty(&data, record.disk_mb << 20)?;
            Ok(root.format.into())
        })
        .await
    }

    /// Makes the disks that came from a snapshot as large as this sandbox is to have them. Its machine is off.
    async fn grow_disks(&self, entry: &Entry) -> Result<(), SandboxError> {
        let record = entry.record();
        let root = Disk { format: record.root_format.into(), ..Disk::raw(self.layout.root_disk(entry.id)) };
        let data = Disk::raw(self.layout.data_disk(entry.id));
        blocking(move || [root, data].iter().try_for_each(|disk| disks::grow(disk, record.disk_mb << 20))).await
    }

    /// Removes what there is of a sandbox that could not be made, and forgets it. What cannot be removed now is tried
    /// again by whoever looks after machines.
    pub(super) async fn undo(&self, entry: &Arc<Entry>) {
        if let Err(error) = self.remove(entry).await {
            tracing::warn!(sandbox = %entry.id, reason = error_chain(&error), "what is left of a sandbox goes later");
        }
    }

    /// Whether a machine of this sandbox runs or stands still.
    pub(super) async fn has_machine(&self, entry: &Entry) -> Result<bool, SandboxError> {
        let state =
            self.vmm.state(&self.directory(entry)).await.map_err(SandboxError::vmm("say how the machine is"))?;
        Ok(!matches!(state, MachineState::Gone(_)))
    }

    /// The directory of a sandbox that nobody knows goes, with the machine in it.
    pub(super) async fn remove_remains(&self, directory: &Path) -> Result<(), SandboxError> {
        self.vmm.end(directory).await.map_err(SandboxError::vmm("end a machine"))?;
        remove_directory(directory).await
    }
}
