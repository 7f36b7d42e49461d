//! Machines run by Firecracker, on KVM.
//!
//! The monitor runs in the machine's directory or in a jail below it, and calls everything there by relative names, so
//! that the saved state of one machine refers to the files of the machine that is restored from it. The monitor's own
//! filter of system calls stays on.

mod api;
mod jail;
mod memory;
mod place;
mod requests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use emergent_guest_proto::machine::PROBE_ANSWER;
use emergent_provider::ByteStream;
use tokio::{
    process::Command,
    sync::OnceCell,
    time::{Instant, sleep},
};

pub use self::jail::JailChoice;
use self::{
    api::Api,
    jail::Jailer,
    place::{SAVING, VmmDir, clear},
};
use crate::{
    Acceleration, BootError, Disk, DiskFormat, GoneReason, Kernel, MachineId, MachineSpec, MachineState, Probe,
    RestoreError, SaveError, Vmm, VmmError, VmmKind, disks,
    identity::Identity,
    manifest::Manifest,
    process::{Process, ProcessEnd},
    vmm::ProbeDir,
    vsock,
};

/// The names of a saved machine's files.
const SNAPSHOT: &str = "snapshot";
const MEMORY: &str = "memory";

/// The time that the monitor may take to open its socket.
const START_PATIENCE: Duration = Duration::from_secs(10);
const START_INTERVAL: Duration = Duration::from_millis(2);

/// The time that a machine may take to report that it boots.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
const PROBE_MEMORY_MIB: u32 = 192;

/// The settings of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerSettings {
    /// The path of Firecracker's program.
    pub program: PathBuf,
    /// Whether Firecracker runs in a jail.
    pub jail: JailChoice,
    /// The kernel that is booted to test whether machines boot.
    pub probe_kernel: Option<Kernel>,
    /// The directory of the test machine, made if it is missing; `None` takes a temporary directory that is removed
    /// again. A test machine that an earlier process has left in the directory is ended.
    pub probe_dir: Option<PathBuf>,
}

/// The driver. Cheap to make: all state of machines is in their directories. Clones are the same driver.
#[derive(Debug, Clone)]
pub struct Firecracker {
    settings: FirecrackerSettings,
    probed: Arc<OnceCell<Probe>>,
}

// === impl FirecrackerSettings ===

impl Default for FirecrackerSettings {
    fn default() -> Self {
        Self { program: "firecracker".into(), jail: JailChoice::Auto, probe_kernel: None, probe_dir: None }
    }
}

// === impl Firecracker ===

impl Firecracker {
    /// Makes a driver; starts nothing yet.
    pub fn new(settings: FirecrackerSettings) -> Self {
        Self { settings, probed: Arc::default() }
    }

    /// Makes a driver that assumes that machines boot, under the given version. For the driver's tests on a processor
    /// that runs no ordinary kernel: everything but the inside of the machine is as elsewhere.
    pub fn unprobed(settings: FirecrackerSettings, version: String) -> Self {
        let works = Probe::Works { acceleration: Acceleration::Kvm, version, warnings: Vec::new() };
        Self { settings, probed: Arc::new(OnceCell::new_with(Some(works))) }
    }

    /// Returns the maker of jails; `None` where monitors run without.
    fn jailer(&self) -> Result<Option<Jailer>, BootError> {
        match (self.settings.jail.jailer(), &self.settings.jail) {
            (Ok(jailer), _) => Ok(Some(jailer)),
            (Err(_), JailChoice::Auto | JailChoice::None) => Ok(None),
            (Err(reason), JailChoice::Only(_)) => Err(BootError::Unsupported { vmm: VmmKind::Firecracker, reason }),
        }
    }

    /// Returns the warnings about weak isolation, as sentences for people.
    fn warnings(&self) -> Vec<String> {
        match self.settings.jail.jailer() {
            Ok(jailer) => jailer.warning().into_iter().collect(),
            Err(reason) => vec![format!("Firecracker runs without its jailer: {reason}")],
        }
    }

    async fn usable(&self) -> Result<String, BootError> {
        match self.probe().await {
            Probe::Works { version, .. } => Ok(version),
            Probe::Fails { reason } => Err(BootError::Unsupported { vmm: VmmKind::Firecracker, reason }),
        }
    }

    /// Starts the monitor, which waits for its configuration. Its console goes to `console`, or nowhere.
    async fn start(
        &self,
        spec: &MachineSpec,
        version: &str,
        console: Option<fs::File>,
    ) -> Result<(Api, VmmDir), BootError> {
        if self.process(&spec.dir).is_ok_and(|process| process.is_some()) {
            return Err(BootError::Occupied { dir: spec.dir.clone() });
        }
        if [Some(&spec.root), spec.data.as_ref()].into_iter().flatten().any(|disk| disk.format != DiskFormat::Raw) {
            let reason = "its disks must be raw images".to_owned();
            return Err(BootError::Unsupported { vmm: VmmKind::Firecracker, reason });
        }
        let jailer = self.jailer()?;
        let program = jail::on_path(&self.settings.program).unwrap_or_else(|| self.settings.program.clone());
        let prepared = VmmDir::prepare(spec, version, &program, jailer.is_some());
        let place = prepared.map_err(|source| BootError::File { action: "prepare", path: spec.dir.clone(), source })?;
        let file = |action, path: PathBuf| move |source| BootError::File { action, path, source };
        let log = log_file(&spec.dir);
        let output = fs::File::create(&log).map_err(file("make", log))?;
        let mut command = place.command(spec, &program, jailer.as_ref()).into_std();
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stderr(output).stdout(console.map_or_else(Stdio::null, Stdio::from));
        // Not waited for but by whoever asks how it ended: that the system remembers until then.
        let mut child = command.spawn().map_err(|source| BootError::NoProgram {
            program: command.get_program().display().to_string(),
            advice: "install firecracker, or name the program",
            source,
        })?;
        let pid_file = pid_file(&spec.dir);
        let started = match fs::write(&pid_file, child.id().to_string()) {
            Ok(()) => is_set_up(spec, &mut child).await,
            Err(error) => Err(file("write", pid_file)(error)),
        };
        if started.is_err() {
            // That it could not be killed means that it has ended.
            let _ = child.kill();
            let _ = child.wait();
            let _ = clear(&spec.dir);
        }
        started.map(|api| (api, place))
    }

    /// Configures a new monitor; ends it if it refuses.
    async fn told(
        &self,
        spec: &MachineSpec,
        telling: impl Future<Output = Result<(), VmmError>> + Send,
    ) -> Result<(), VmmError> {
        let told = telling.await;
        if told.is_err() {
            // The error that is reported is the first.
            let _ = self.end(&spec.dir).await;
        }
        told
    }

    fn process(&self, dir: &Path) -> Result<Option<Process>, VmmError> {
        let pid_file = pid_file(dir);
        Process::find(&pid_file, &VmmDir::of(dir).mark()).map_err(|source| VmmError::File {
            action: "read",
            path: pid_file,
            source,
        })
    }

    /// Returns the API of a machine that runs.
    fn api(&self, dir: &Path) -> Result<Api, VmmError> {
        match self.process(dir)? {
            Some(_) => Ok(Api::new(&socket(dir))),
            None => Err(VmmError::Gone(reason(dir))),
        }
    }

    async fn probe_with(&self, kernel: &Kernel) -> Probe {
        let version = match version(&self.settings.program).await {
            Ok(version) => version,
            Err(error) => {
                let program = self.settings.program.display();
                return Probe::Fails { reason: format!("{program} does not start ({error}); install firecracker") };
            }
        };
        match self.try_to_boot(kernel, &version).await {
            Ok(()) => Probe::Works { acceleration: Acceleration::Kvm, version, warnings: self.warnings() },
            Err(reason) => Probe::Fails { reason },
        }
    }

    /// Boots a machine and ends it. An error is a sentence for people.
    async fn try_to_boot(&self, kernel: &Kernel, version: &str) -> Result<(), String> {
        let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
        opened.map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
        let work = ProbeDir::make(self.settings.probe_dir.as_deref());
        let work = work.map_err(|error| format!("no directory for a probe: {error}"))?;
        self.end(work.path()).await.map_err(|error| format!("a machine could not be ended: {error}"))?;
        let file = |error: io::Error| format!("no file for a probe: {error}");
        let (disk, console) = (work.path().join("disk"), work.path().join("console"));
        fs::File::create(&disk).and_then(|disk| disk.set_len(1 << 20)).map_err(file)?;
        let output = fs::File::create(&console).map_err(file)?;
        let mut kernel = kernel.clone();
        kernel.command_line.push("emergent.probe".to_owned());
        let spec = MachineSpec {
            id: MachineId::generate(),
            dir: work.path().to_owned(),
            kernel,
            root: Disk::raw(disk),
            data: None,
            memory_mib: PROBE_MEMORY_MIB,
            vcpus: 1,
            network: None,
            processes: None,
        };
        let (api, place) = self.start(&spec, version, Some(output)).await.map_err(|error| error.to_string())?;
        let booted = async {
            let spec = place.seen_from_inside(&spec).map_err(file)?;
            requests::boot(&api, &spec, true).await.map_err(|error| format!("a machine does not start: {error}"))?;
            let deadline = Instant::now() + PROBE_PATIENCE;
            while Instant::now() < deadline {
                if fs::read_to_string(&console).is_ok_and(|said| said.contains(PROBE_ANSWER)) {
                    return Ok(());
                }
                sleep(PROBE_INTERVAL).await;
            }
            Err(format!("/dev/kvm opens, but a machine on it does not boot within {PROBE_PATIENCE:?}"))
        }
        .await;
        self.end(&spec.dir).await.map_err(|error| format!("a machine could not be ended: {error}"))?;
        booted
    }
}

#[async_trait]
impl Vmm for Firecracker {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    fn user(&self, machine: MachineId) -> u32 {
        match self.settings.jail.jailer() {
            Ok(_) => jail::user(machine),
            Err(_) => rustix::process::geteuid().as_raw(),
        }
    }

    async fn probe(&self) -> Probe {
        if let Some(known) = self.probed.get() {
            return known.clone();
        }
        let Some(kernel) = self.settings.probe_kernel.clone() else {
            // Not remembered: one may be imported.
            return Probe::Fails { reason: crate::NO_KERNEL.to_owned() };
        };
        let firecracker = self.clone();
        crate::vmm::to_the_end(async move {
            firecracker.probed.get_or_init(|| firecracker.probe_with(&kernel)).await.clone()
        })
        .await
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), BootError> {
        let version = self.usable().await?;
        let (api, place) = self.start(spec, &version, None).await?;
        let telling = async {
            let seen = place.seen_from_inside(spec);
            let seen = seen.map_err(|source| VmmError::File {
                action: "bring into the jail what belongs to",
                path: spec.dir.clone(),
                source,
            })?;
            requests::boot(&api, &seen, false).await
        };
        Ok(self.told(spec, telling).await?)
    }

    async fn state(&self, dir: &Path) -> Result<MachineState, VmmError> {
        if self.process(dir)?.is_none() {
            return Ok(MachineState::Gone(reason(dir)));
        }
        match Api::new(&socket(dir)).describe().await {
            Ok(said) if said.get("state").is_some_and(|state| state == "Running") => Ok(MachineState::Running),
            Ok(_) => Ok(MachineState::Frozen),
            Err(error) => match self.process(dir)? {
                Some(_) => Err(error),
                None => Ok(MachineState::Gone(reason(dir))),
            },
        }
    }

    async fn open(&self, dir: &Path) -> Result<ByteStream, VmmError> {
        let alive = || async { self.process(dir)?.map(drop).ok_or_else(|| VmmError::Gone(reason(dir))) };
        Ok(Box::new(vsock::open(dir, alive).await?))
    }

    async fn freeze(&self, dir: &Path) -> Result<(), VmmError> {
        requests::run(&self.api(dir)?, false).await
    }

    async fn thaw(&self, dir: &Path) -> Result<(), VmmError> {
        requests::run(&self.api(dir)?, true).await
    }

    async fn save(&self, dir: &Path, into: &Path) -> Result<(), SaveError> {
        match self.state(dir).await? {
            MachineState::Frozen => {}
            MachineState::Running => return Err(SaveError::NotFrozen),
            MachineState::Gone(reason) => return Err(VmmError::Gone(reason).into()),
        }
        let identity = Identity::read(dir).map_err(|source| SaveError::File {
            action: "read",
            path: Identity::file(dir),
            source,
        })?;
        let saved = save(&self.api(dir)?, &VmmDir::of(dir), &identity, into).await;
        if saved.is_err() {
            for file in [SNAPSHOT, MEMORY].map(|name| into.join(name)) {
                let _ = fs::remove_file(file);
            }
        }
        saved
    }

    async fn restore(&self, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError> {
        let manifest = Manifest::read(from)?;
        let version = self.usable().await?;
        let identity = Identity::new(spec, Acceleration::Kvm, &version);
        manifest.fits(from, VmmKind::Firecracker, &identity)?;
        let (api, place) = self.start(spec, &version, None).await?;
        let telling = async {
            let brought = place.bring_saved(&from.join(SNAPSHOT), &from.join(MEMORY));
            let brought = brought.map_err(|source| VmmError::File { action: "read", path: from.to_owned(), source });
            let [snapshot, memory] = brought?;
            requests::load(&api, spec, snapshot, memory).await
        };
        match self.told(spec, telling).await {
            Err(VmmError::Refused { message, .. }) => {
                Err(RestoreError::Damaged { from: from.to_owned(), reason: message })
            }
            told => Ok(told?),
        }
    }

    async fn end(&self, dir: &Path) -> Result<(), VmmError> {
        if let Some(process) = self.process(dir)? {
            let ended = tokio::task::spawn_blocking(move || process.end()).await;
            let ended = ended.map_err(io::Error::other).flatten();
            ended.map_err(|source| VmmError::File { action: "end the process of", path: dir.to_owned(), source })?;
        }
        ProcessEnd::forget(&pid_file(dir));
        clear(dir).map_err(|source| VmmError::File { action: "clear", path: dir.to_owned(), source })
    }
}

/// Waits until the monitor answers, or ends.
async fn is_set_up(spec: &MachineSpec, child: &mut Child) -> Result<Api, BootError> {
    let refused = |message| Err(BootError::Refused { vmm: VmmKind::Firecracker, message });
    let api = Api::new(&socket(&spec.dir));
    let deadline = Instant::now() + START_PATIENCE;
    while api.describe().await.is_err() {
        if !matches!(child.try_wait(), Ok(None)) {
            let said = fs::read_to_string(log_file(&spec.dir)).unwrap_or_default();
            return refused(if said.trim().is_empty() {
                "it ended at once".to_owned()
            } else {
                said.trim().to_owned()
            });
        }
        if Instant::now() > deadline {
            return refused(format!("it did not set itself up within {START_PATIENCE:?}"));
        }
        sleep(START_INTERVAL).await;
    }
    Ok(api)
}

/// Saves a frozen machine to files that its monitor can write, and moves these to where they are kept.
async fn save(api: &Api, place: &VmmDir, identity: &Identity, into: &Path) -> Result<(), SaveError> {
    let [snapshot, memory] = SAVING.map(|name| place.file(name));
    let failed = |action| {
        let path = memory.clone();
        move |source| SaveError::File { action, path, source }
    };
    let forget = || SAVING.map(|name| fs::remove_file(place.file(name)).ok());
    // Of one that came to nothing.
    forget();
    let saving = memory::begin(place, &memory, identity.shape.memory_mib()).map_err(failed("get ready to write"))?;
    if let Err(error) = requests::save(api, saving, SAVING[0], SAVING[1]).await {
        forget();
        return Err(crate::manifest::no_room(error, into));
    }
    saving.done(place).map_err(failed("take note of"))?;
    let (into, identity) = (into.to_owned(), identity.clone());
    let written = tokio::task::spawn_blocking(move || {
        for (from, name) in [(snapshot, SNAPSHOT), (memory, MEMORY)] {
            let to = into.join(name);
            keep(&from, &to).map_err(|source| SaveError::File { action: "write", path: to, source })?;
        }
        Manifest::write(&into, VmmKind::Firecracker, &identity, &[SNAPSHOT, MEMORY])
    });
    written.await.map_err(|error| SaveError::Control(silent(io::Error::other(error))))?
}

/// Moves a file, to another file system, too.
fn keep(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            disks::copy(from, to).map_err(io::Error::other)?;
            fs::remove_file(from)
        }
        moved => moved,
    }
}

/// Asks Firecracker's program for its version.
async fn version(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--version").kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix("Firecracker ") {
        Some(version) if output.status.success() => Ok(version.trim().to_owned()),
        _ => Err(io::Error::other("it does not say its version")),
    }
}

/// Returns the reason why there is no process.
fn reason(dir: &Path) -> GoneReason {
    match ProcessEnd::of(&pid_file(dir)) {
        Some(ProcessEnd::Exited) => GoneReason::Exited,
        Some(ProcessEnd::Killed) => GoneReason::Killed,
        None if pid_file(dir).exists() => GoneReason::Unseen,
        None => GoneReason::NeverBooted,
    }
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("vmm.pid")
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("firecracker.sock")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("vmm.log")
}

fn silent(error: io::Error) -> VmmError {
    VmmError::Silent { vmm: VmmKind::Firecracker, source: error.into() }
}
