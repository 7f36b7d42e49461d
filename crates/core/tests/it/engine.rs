//! An engine whose sandboxes are files in a directory, so that they outlive the process that made them, and which can
//! be told to be slow, to refuse, or to be away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use chrono::Utc;
use emergent_provider::{
    ByteStream, Capabilities, ChannelError, Channels, ContainerKind, CreateError, Created, EngineEvent,
    EngineEventKind, EngineState, ExitReason, Health, HolderRecord, Holders, HostRoom, ImageRef, Inventory, Isolation,
    Lifecycle, Observed, ObservedSnapshot, OperationError, Origin, Provider, ProviderKind, SandboxSpec, SnapshotSpec,
    Snapshots, TakeError, Taken,
};
use emergent_types::{
    CreateStep, DestroyStep, NetworkPolicy, ResourceLimits, ServerId, SnapshotId, SnapshotStep, StepObserver,
    WorkspaceId,
};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::{gates::Gates, guest::FakeGuest};

/// The engine. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeEngine {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    server: ServerId,
    /// The gates before the steps of creates and other operations, and of guests.
    gates: Gates,
    refused: Mutex<BTreeSet<&'static str>>,
    away: watch::Sender<bool>,
    events: broadcast::Sender<EngineEvent>,
    guests: Mutex<BTreeMap<WorkspaceId, FakeGuest>>,
    calls: Mutex<Vec<(&'static str, WorkspaceId)>>,
    short_lived: Mutex<bool>,
    weak: Mutex<bool>,
    image_id: Mutex<String>,
    /// The room that the machine has left, where it can be looked at.
    room: Mutex<Option<HostRoom>>,
    /// The numbers of bytes and tasks that sandboxes take.
    takes: Mutex<BTreeMap<WorkspaceId, (u64, u64)>>,
    pulls: Mutex<bool>,
    kind: ProviderKind,
    /// The newest record of who acts.
    holder: Mutex<Option<HolderRecord>>,
}

#[derive(Debug, thiserror::Error)]
#[error("told to")]
struct Told;

impl FakeEngine {
    /// The engine whose sandboxes are in `directory`; those that it makes belong to `server`.
    pub(crate) fn new(directory: &Path, server: ServerId) -> Self {
        Self::of_kind(ProviderKind::Docker, directory, server)
    }

    /// The same as another provider.
    pub(crate) fn of_kind(kind: ProviderKind, directory: &Path, server: ServerId) -> Self {
        fs::create_dir_all(directory).unwrap();
        fs::create_dir_all(directory.with_extension("snapshots")).unwrap();
        let shared = Shared {
            directory: directory.to_owned(),
            server,
            gates: Gates::default(),
            refused: Mutex::default(),
            away: watch::Sender::new(false),
            events: broadcast::channel(1024).0,
            guests: Mutex::default(),
            calls: Mutex::default(),
            short_lived: Mutex::default(),
            weak: Mutex::default(),
            image_id: Mutex::default(),
            room: Mutex::default(),
            takes: Mutex::default(),
            pulls: Mutex::default(),
            kind,
            holder: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes whatever comes to `step` wait there until it is released.
    pub(crate) fn hold(&self, step: &'static str) {
        self.shared.gates.close(step);
    }

    pub(crate) fn release(&self, step: &'static str) {
        self.shared.gates.open(step);
    }

    /// The gates at which whoever comes to a step is held.
    pub(crate) fn gates(&self) -> &Gates {
        &self.shared.gates
    }

    /// Makes an operation fail from now on.
    pub(crate) fn refuse(&self, operation: &'static str) {
        self.shared.refused.lock().unwrap().insert(operation);
    }

    pub(crate) fn accept(&self, operation: &'static str) {
        self.shared.refused.lock().unwrap().remove(operation);
    }

    /// Whether the engine is away: nothing answers and no event comes.
    pub(crate) fn set_away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    /// Whether sandboxes end as soon as they are started, before their guest has said a word.
    pub(crate) fn set_short_lived(&self, short_lived: bool) {
        *self.shared.short_lived.lock().unwrap() = short_lived;
    }

    /// Whether the engine can neither pause nor keep files.
    pub(crate) fn set_weak(&self, weak: bool) {
        *self.shared.weak.lock().unwrap() = weak;
    }

    /// Sets the image that every reference stands for from now on.
    pub(crate) fn set_image(&self, image_id: &str) {
        image_id.clone_into(&mut self.shared.image_id.lock().unwrap());
    }

    /// Sets the room that the machine has left from now on.
    pub(crate) fn set_room(&self, room: HostRoom) {
        *self.shared.room.lock().unwrap() = Some(room);
    }

    /// Sets the bytes of disk and the number of tasks that a sandbox takes from now on.
    pub(crate) fn set_takes(&self, workspace: WorkspaceId, bytes: u64, tasks: u64) {
        self.shared.takes.lock().unwrap().insert(workspace, (bytes, tasks));
    }

    /// Makes it an engine that pulls images, and has none until one is set.
    pub(crate) fn set_pulls(&self) {
        *self.shared.pulls.lock().unwrap() = true;
    }

    /// Returns the number of times that an operation was asked for.
    pub(crate) fn count(&self, operation: &'static str) -> usize {
        self.shared.calls.lock().unwrap().iter().filter(|(name, _)| *name == operation).count()
    }

    /// The state of a sandbox; `None` where there is nothing of it.
    pub(crate) fn state(&self, workspace: WorkspaceId) -> Option<EngineState> {
        let word = fs::read_to_string(self.file(workspace)).ok()?;
        Some(match word.as_str() {
            "created" => EngineState::Created,
            "running" => EngineState::Running,
            "paused" => EngineState::Paused,
            "remains" => EngineState::Remains,
            "oom" => EngineState::Exited(ExitReason::OutOfMemory),
            "process_limit" => EngineState::Exited(ExitReason::ProcessLimit),
            "disk_limit" => EngineState::Exited(ExitReason::DiskLimit),
            "host_disk" => EngineState::Exited(ExitReason::HostDisk),
            code => EngineState::Exited(ExitReason::Code(code.parse().unwrap())),
        })
    }

    /// Everything that there is.
    pub(crate) fn sandboxes(&self) -> BTreeSet<WorkspaceId> {
        let names = fs::read_dir(&self.shared.directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_str().unwrap().parse().unwrap()).collect()
    }

    /// Every snapshot that there is, whole or not.
    pub(crate) fn snapshots(&self) -> BTreeSet<SnapshotId> {
        let names = fs::read_dir(self.snapshot_directory()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_str().unwrap().parse().unwrap()).collect()
    }

    /// Removes a snapshot behind the server's back.
    pub(crate) fn lose_snapshot(&self, snapshot: SnapshotId) {
        fs::remove_file(self.snapshot_directory().join(snapshot.to_string())).unwrap();
    }

    fn snapshot_directory(&self) -> PathBuf {
        self.shared.directory.with_extension("snapshots")
    }

    /// Changes a sandbox behind the server's back, and says so.
    pub(crate) fn touch(&self, workspace: WorkspaceId, state: Option<EngineState>) {
        self.touch_silently(workspace, state.clone());
        let kind = match state {
            None | Some(EngineState::Remains | EngineState::Created) => EngineEventKind::Removed,
            Some(EngineState::Running) => EngineEventKind::Started,
            Some(EngineState::Paused) => EngineEventKind::Paused,
            Some(EngineState::Exited(reason)) => EngineEventKind::Exited(reason),
        };
        self.emit(workspace, kind);
    }

    /// Changes a sandbox behind the server's back, without an event.
    pub(crate) fn touch_silently(&self, workspace: WorkspaceId, state: Option<EngineState>) {
        let Some(state) = state else {
            fs::remove_file(self.file(workspace)).unwrap();
            return;
        };
        let word = match state {
            EngineState::Created => "created".to_owned(),
            EngineState::Running => "running".to_owned(),
            EngineState::Paused => "paused".to_owned(),
            EngineState::Remains => "remains".to_owned(),
            EngineState::Exited(ExitReason::OutOfMemory) => "oom".to_owned(),
            EngineState::Exited(ExitReason::ProcessLimit) => "process_limit".to_owned(),
            EngineState::Exited(ExitReason::DiskLimit) => "disk_limit".to_owned(),
            EngineState::Exited(ExitReason::HostDisk) => "host_disk".to_owned(),
            EngineState::Exited(ExitReason::Code(code)) => code.to_string(),
        };
        // Written aside and renamed, so that a reader never sees half a word.
        let aside = self.shared.directory.with_extension(workspace.to_string());
        fs::write(&aside, word).unwrap();
        fs::rename(aside, self.file(workspace)).unwrap();
        if state != EngineState::Running && state != EngineState::Paused {
            self.guest(workspace).restart();
        }
    }

    pub(crate) fn emit(&self, workspace: WorkspaceId, kind: EngineEventKind) {
        // Nobody may be listening.
        self.shared.events.send(EngineEvent { workspace, kind }).ok();
    }

    /// The guest of a workspace.
    pub(crate) fn guest(&self, workspace: WorkspaceId) -> FakeGuest {
        let kept = self.shared.directory.with_extension("guests").join(workspace.to_string());
        let mut guests = self.shared.guests.lock().unwrap();
        let gates = self.shared.gates.clone();
        guests.entry(workspace).or_insert_with(|| FakeGuest::kept_in(kept, workspace, gates)).clone()
    }

    fn file(&self, workspace: WorkspaceId) -> PathBuf {
        self.shared.directory.join(workspace.to_string())
    }

    /// Notes a call, waits where it is held, and fails where it is told to.
    async fn enter(&self, operation: &'static str, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.shared.calls.lock().unwrap().push((operation, workspace));
        self.shared.gates.pass(workspace, operation).await;
        self.answers()?;
        if self.shared.refused.lock().unwrap().contains(operation) {
            return Err(OperationError::Refused { engine: "the engine".into(), operation, source: Told.into() });
        }
        Ok(())
    }

    fn answers(&self) -> Result<(), OperationError> {
        if *self.shared.away.borrow() {
            let (engine, advice) = ("the engine".to_owned(), "start it".to_owned());
            return Err(OperationError::EngineUnavailable { engine, advice, source: Told.into() });
        }
        Ok(())
    }

    fn observe(&self, workspace: WorkspaceId) -> Option<Observed> {
        let state = self.state(workspace)?;
        let created_at = fs::metadata(self.file(workspace)).unwrap().modified().unwrap().into();
        let kind = ContainerKind::AgentWorkspace;
        let claimed = Some(self.guest(workspace).is_handed_over());
        Some(Observed { workspace, server: self.shared.server, kind, created_at, state, claimed })
    }

    /// Lets a sandbox run, and opens the first channel to its guest.
    fn run(&self, workspace: WorkspaceId) -> Option<ByteStream> {
        if *self.shared.short_lived.lock().unwrap() {
            self.touch(workspace, Some(EngineState::Exited(ExitReason::Code(1))));
            return None;
        }
        Some(self.guest(workspace).connect())
    }
}

#[async_trait]
impl Lifecycle for FakeEngine {
    async fn create(&self, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<Created, CreateError> {
        let id = spec.workspace;
        self.shared.calls.lock().unwrap().push(("create", id));
        let refused = |step| CreateError::Refused { engine: "the engine".into(), step, source: Told.into() };
        if self.shared.refused.lock().unwrap().contains("create.unfit") {
            let engine = "the engine".into();
            return Err(CreateError::Unfit { engine, step: "make the container", source: Told.into() });
        }
        for step in [
            CreateStep::ImagePresent,
            CreateStep::VolumeCreated,
            CreateStep::VolumeFilled,
            CreateStep::SandboxCreated,
            CreateStep::SandboxStarted,
        ] {
            self.shared.gates.pass(id, step.name()).await;
            if let Err(OperationError::EngineUnavailable { engine, advice, source }) = self.answers() {
                return Err(CreateError::EngineUnavailable { engine, advice, source });
            }
            if self.shared.refused.lock().unwrap().contains(step.name()) {
                if self.state(id).is_some() {
                    self.touch_silently(id, None);
                }
                return Err(refused(step.name()));
            }
            match step {
                CreateStep::VolumeCreated => self.touch_silently(id, Some(EngineState::Remains)),
                CreateStep::SandboxCreated => self.touch_silently(id, Some(EngineState::Created)),
                CreateStep::SandboxStarted => self.touch(id, Some(EngineState::Running)),
                CreateStep::IntentRecorded
                | CreateStep::ImagePresent
                | CreateStep::VolumeFilled
                | CreateStep::GuestAnswered
                | CreateStep::HandedOver
                | CreateStep::ReadyRecorded => {}
            }
            observer.created(id, step);
        }
        let warnings = vec!["not a real sandbox".to_owned()];
        let (isolation, runtime) = (Isolation::Container, "files".to_owned());
        Ok(Created { first_channel: self.run(id), warnings, isolation, runtime, image: None })
    }

    async fn start(&self, workspace: WorkspaceId) -> Result<Option<ByteStream>, OperationError> {
        self.enter("start", workspace).await?;
        match self.state(workspace) {
            None | Some(EngineState::Remains) => return Err(OperationError::Gone),
            Some(_) => self.touch(workspace, Some(EngineState::Running)),
        }
        Ok(self.run(workspace))
    }

    async fn stop(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.enter("stop", workspace).await?;
        match self.state(workspace) {
            None | Some(EngineState::Remains) => return Err(OperationError::Gone),
            Some(EngineState::Exited(_)) => {}
            Some(_) => self.touch(workspace, Some(EngineState::Exited(ExitReason::Code(0)))),
        }
        Ok(())
    }

    async fn end(&self, workspace: WorkspaceId, why: ExitReason) -> Result<(), OperationError> {
        self.enter("end", workspace).await?;
        self.touch(workspace, Some(EngineState::Exited(why)));
        Ok(())
    }

    async fn pause(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.enter("pause", workspace).await?;
        self.touch(workspace, Some(EngineState::Paused));
        Ok(())
    }

    async fn unpause(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.enter("unpause", workspace).await?;
        if self.state(workspace) == Some(EngineState::Paused) {
            self.touch(workspace, Some(EngineState::Running));
        }
        Ok(())
    }

    async fn update_limits(&self, workspace: WorkspaceId, _: ResourceLimits) -> Result<(), OperationError> {
        self.enter("update_limits", workspace).await
    }

    async fn destroy(&self, workspace: WorkspaceId, observer: &dyn StepObserver) -> Result<(), OperationError> {
        self.enter("destroy", workspace).await?;
        if self.state(workspace).is_some() {
            self.touch_silently(workspace, Some(EngineState::Remains));
        }
        observer.destroyed(workspace, DestroyStep::SandboxRemoved);
        if self.state(workspace).is_some() {
            self.touch(workspace, None);
        }
        observer.destroyed(workspace, DestroyStep::VolumesRemoved);
        Ok(())
    }
}

#[async_trait]
impl Channels for FakeEngine {
    async fn open(&self, workspace: WorkspaceId) -> Result<ByteStream, ChannelError> {
        let unavailable =
            |source: io::Error| ChannelError::Refused { engine: "the engine".into(), source: source.into() };
        if *self.shared.away.borrow() {
            return Err(unavailable(io::ErrorKind::ConnectionRefused.into()));
        }
        match self.state(workspace) {
            Some(EngineState::Running) => Ok(self.guest(workspace).connect()),
            Some(EngineState::Paused) => Err(unavailable(io::ErrorKind::WouldBlock.into())),
            _ => Err(ChannelError::NotRunning),
        }
    }
}

#[async_trait]
impl Inventory for FakeEngine {
    async fn inspect(&self, workspace: WorkspaceId) -> Result<Option<Observed>, OperationError> {
        self.enter("inspect", workspace).await?;
        Ok(self.observe(workspace))
    }

    async fn list(&self) -> Result<Vec<Observed>, OperationError> {
        self.enter("list", WorkspaceId::generate()).await?;
        Ok(self.sandboxes().into_iter().filter_map(|id| self.observe(id)).collect())
    }

    async fn disk_use(&self, workspace: WorkspaceId, _enough: u64) -> Result<Option<u64>, OperationError> {
        self.enter("disk_use", workspace).await?;
        Ok(self.shared.takes.lock().unwrap().get(&workspace).map(|(bytes, _)| *bytes))
    }

    async fn task_use(&self, workspace: WorkspaceId) -> Result<Option<u64>, OperationError> {
        Ok(self.shared.takes.lock().unwrap().get(&workspace).map(|(_, tasks)| *tasks))
    }

    fn host_room(&self) -> Option<HostRoom> {
        *self.shared.room.lock().unwrap()
    }

    async fn origin(&self, workspace: WorkspaceId) -> Result<Option<Origin>, OperationError> {
        self.answers()?;
        Ok(self.state(workspace).map(|_| origin()))
    }

    async fn origin_of_snapshot(&self, snapshot: SnapshotId) -> Result<Option<(WorkspaceId, Origin)>, OperationError> {
        self.answers()?;
        Ok(self.snapshots().contains(&snapshot).then(|| (WorkspaceId::generate(), origin())))
    }

    async fn image_id(&self, _: &ImageRef) -> Result<Option<String>, OperationError> {
        self.answers()?;
        let image_id = self.shared.image_id.lock().unwrap().clone();
        Ok(Some(image_id).filter(|id| !self.pulls_images() || !id.is_empty()))
    }

    fn pulls_images(&self) -> bool {
        *self.shared.pulls.lock().unwrap()
    }

    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError> {
        self.answers()?;
        let mut away = self.shared.away.subscribe();
        let gone = async move { drop(away.wait_for(|away| *away).await) };
        let events = BroadcastStream::new(self.shared.events.subscribe());
        Ok(events.map(|event| event.unwrap()).take_until(Box::pin(gone)).boxed())
    }
}

#[async_trait]
impl Snapshots for FakeEngine {
    async fn take(&self, spec: &SnapshotSpec, observer: &dyn StepObserver) -> Result<Taken, TakeError> {
        self.enter("take", spec.workspace).await?;
        let freezes = self.state(spec.workspace) == Some(EngineState::Running);
        for step in [
            SnapshotStep::VolumeCreated,
            SnapshotStep::SandboxFrozen,
            SnapshotStep::FilesCopied,
            SnapshotStep::SandboxThawed,
        ] {
            self.shared.gates.pass(spec.workspace, step.name()).await;
            self.answers()?;
            match step {
                SnapshotStep::VolumeCreated => {
                    fs::write(self.snapshot_directory().join(spec.snapshot.to_string()), "").unwrap();
                }
                SnapshotStep::SandboxFrozen if freezes => self.touch(spec.workspace, Some(EngineState::Paused)),
                SnapshotStep::SandboxThawed if freezes => self.touch(spec.workspace, Some(EngineState::Running)),
                SnapshotStep::IntentRecorded
                | SnapshotStep::SandboxFrozen
                | SnapshotStep::FilesCopied
                | SnapshotStep::SandboxThawed
                | SnapshotStep::ReadyRecorded => {}
            }
            observer.snapshot_taken(spec.snapshot, step);
        }
        if self.shared.refused.lock().unwrap().contains("copy") {
            self.lose_snapshot(spec.snapshot);
            return Err(TakeError::CopyFailed("told to".to_owned()));
        }
        Ok(Taken { root_bytes: 1, workspace_bytes: 2 })
    }

    async fn delete(&self, snapshot: SnapshotId) -> Result<(), OperationError> {
        self.enter("delete", WorkspaceId::generate()).await?;
        if self.snapshots().contains(&snapshot) {
            self.lose_snapshot(snapshot);
        }
        Ok(())
    }

    async fn list_snapshots(&self) -> Result<Vec<ObservedSnapshot>, OperationError> {
        self.answers()?;
        let (server, created_at) = (self.shared.server, Utc::now());
        let all = self.snapshots().into_iter();
        Ok(all.map(|snapshot| ObservedSnapshot { snapshot, server, created_at, whole: true }).collect())
    }
}

#[async_trait]
impl Holders for FakeEngine {
    async fn holders(&self) -> Result<Vec<HolderRecord>, OperationError> {
        self.answers()?;
        Ok(self.shared.holder.lock().unwrap().clone().into_iter().collect())
    }

    async fn record_holder(&self, record: &HolderRecord) -> Result<bool, OperationError> {
        self.answers()?;
        let mut holder = self.shared.holder.lock().unwrap();
        if holder.as_ref().is_some_and(|known| known.number >= record.number) {
            return Ok(false);
        }
        *holder = Some(HolderRecord { at: Utc::now(), ..record.clone() });
        Ok(true)
    }

    async fn forget_holder(&self, _server: ServerId) -> Result<(), OperationError> {
        self.answers()?;
        *self.shared.holder.lock().unwrap() = None;
        Ok(())
    }
}

#[async_trait]
impl Provider for FakeEngine {
    fn kind(&self) -> ProviderKind {
        self.shared.kind
    }

    fn capabilities(&self) -> Capabilities {
        let strong = !*self.shared.weak.lock().unwrap();
        Capabilities {
            isolation: Isolation::Container,
            persistence: strong,
            pause: strong,
            snapshots: strong,
            warm_pool: false,
            live_limits: false,
            disk_quota: false,
            network_filter: false,
        }
    }

    async fn health(&self) -> Health {
        let away = *self.shared.away.borrow();
        let message = if away { "the engine is away; start it" } else { "it works" };
        Health { healthy: !away, message: message.to_owned(), warnings: Vec::new() }
    }
}

/// The image, the limits and the network of every sandbox.
fn origin() -> Origin {
    Origin {
        image: "emergent/workspace:latest".parse().unwrap(),
        limits: ResourceLimits { cpu: 1.0, memory_bytes: 1 << 30, disk_bytes: 1 << 30, pids: 64 },
        network: NetworkPolicy::None,
    }
}

/// Returns a time so long ago that nothing of a sandbox is young any more.
pub(crate) fn long_ago() -> std::time::SystemTime {
    (Utc::now() - chrono::TimeDelta::hours(1)).into()
}

impl FakeEngine {
    /// A sandbox that no row knows.
    pub(crate) fn stray(&self, made_at: std::time::SystemTime) -> WorkspaceId {
        let id = WorkspaceId::generate();
        self.touch_silently(id, Some(EngineState::Running));
        fs::File::options().write(true).open(self.file(id)).unwrap().set_modified(made_at).unwrap();
        id
    }
}
