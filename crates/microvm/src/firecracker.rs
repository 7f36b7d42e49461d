//! Machines run by Firecracker, on KVM.
//!
//! The monitor runs in the machine's directory and calls everything there by relative names, so that what is saved of
//! one machine means the files of the machine that is restored from it. Its own filter of system calls stays on.

mod api;
mod requests;

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use emergent_guest_proto::machine::{PROBE_ANSWER, VSOCK_PORT};
use emergent_provider::ByteStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

use self::api::Api;
use crate::{
    Acceleration, BootError, Disk, DiskFormat, GoneReason, Kernel, MachineId, MachineSpec, MachineState, Probe,
    RestoreError, SaveError, Vmm, VmmError, VmmKind, identity::Identity, manifest::Manifest, process::Process,
    vmm::ProbeDir,
};

/// What is written of a saved machine.
const SNAPSHOT: &str = "snapshot";
const MEMORY: &str = "memory";

/// How long the monitor may take to open its socket.
const START_PATIENCE: Duration = Duration::from_secs(10);
const START_INTERVAL: Duration = Duration::from_millis(2);

/// How long a machine may take to say that it boots.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
const PROBE_MEMORY_MIB: u32 = 192;

/// How often a guest that does not listen yet is called again.
const CALL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the monitor may take to pass a call on.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer to a call.
const LONGEST_ANSWER: usize = 32;

/// How the driver is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerSettings {
    /// The program.
    pub program: PathBuf,
    /// What is booted to see whether machines boot.
    pub probe_kernel: Option<Kernel>,
    /// The directory of the machine that is booted for that, made if it is missing; `None` is one that is removed again.
    /// What an earlier process has left there is ended.
    pub probe_dir: Option<PathBuf>,
}

/// The driver. Cheap: everything about machines is in their directories. Clones are the same.
#[derive(Debug, Clone)]
pub struct Firecracker {
    settings: FirecrackerSettings,
    probed: Arc<OnceCell<Probe>>,
}

// === impl FirecrackerSettings ===

impl Default for FirecrackerSettings {
    fn default() -> Self {
        Self { program: "firecracker".into(), probe_kernel: None, probe_dir: None }
    }
}

// === impl Firecracker ===

impl Firecracker {
    /// A driver. Does nothing yet.
    pub fn new(settings: FirecrackerSettings) -> Self {
        Self { settings, probed: Arc::default() }
    }

    async fn usable(&self) -> Result<String, BootError> {
        match self.probe().await {
            Probe::Works { version, .. } => Ok(version),
            Probe::Fails { reason } => Err(BootError::Unsupported { vmm: VmmKind::Firecracker, reason }),
        }
    }

    /// Starts the monitor, which waits to be told what to do. Its console goes nowhere; a probe's goes to `console`, and
    /// its process goes with the answer.
    async fn start(
        &self,
        spec: &MachineSpec,
        version: &str,
        console: Option<fs::File>,
    ) -> Result<(Api, Child), BootError> {
        if self.process(&spec.dir).is_ok_and(|process| process.is_some()) {
            return Err(BootError::Occupied { dir: spec.dir.clone() });
        }
        if [Some(&spec.root), spec.data.as_ref()].into_iter().flatten().any(|disk| disk.format != DiskFormat::Raw) {
            let reason = "its disks must be raw images".to_owned();
            return Err(BootError::Unsupported { vmm: VmmKind::Firecracker, reason });
        }
        prepare(spec, version).map_err(|source| BootError::File {
            action: "prepare",
            path: spec.dir.clone(),
            source,
        })?;
        let file = |action, path: PathBuf| move |source| BootError::File { action, path, source };
        let log = log_file(&spec.dir);
        let output = fs::File::create(&log).map_err(file("make", log))?;
        let mut command = Command::new(&self.settings.program);
        command.arg("--api-sock").arg(socket(&spec.dir)).arg("--id").arg(spec.id.to_string());
        command.current_dir(&spec.dir).process_group(0).stdin(Stdio::null()).stderr(output);
        command.kill_on_drop(console.is_some()).stdout(console.map_or_else(Stdio::null, Stdio::from));
        let mut child = command.spawn().map_err(|source| BootError::NoProgram {
            program: self.settings.program.display().to_string(),
            advice: "install firecracker, or name the program",
            source,
        })?;
        let pid_file = pid_file(&spec.dir);
        let number = child.id().unwrap_or_default().to_string();
        let started = match fs::write(&pid_file, number) {
            Ok(()) => is_set_up(spec, &mut child).await,
            Err(error) => Err(file("write", pid_file)(error)),
        };
        if started.is_err() {
            let _ = child.kill().await;
            let _ = clear(&spec.dir);
        }
        started.map(|api| (api, child))
    }

    /// Tells a new monitor what to do; ends it if it refuses.
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
        Process::find(&pid_file, dir).map_err(|source| VmmError::File { action: "read", path: pid_file, source })
    }

    /// The API of a machine that is there.
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
            Ok(()) => Probe::Works { acceleration: Acceleration::Kvm, version, warnings: Vec::new() },
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
        let started = self.start(&spec, version, Some(output)).await;
        let (api, _process) = started.map_err(|error| error.to_string())?;
        let booted = async {
            requests::boot(&api, &spec, true).await.map_err(|error| format!("a machine does not start: {error}"))?;
            let deadline = Instant::now() + PROBE_PATIENCE;
            while Instant::now() < deadline {
                if fs::read_to_string(&console).is_ok_and(|said| said.contains(PROBE_ANSWER)) {
                    return Ok(());
                }
                sleep(CALL_INTERVAL).await;
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

    async fn probe(&self) -> Probe {
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
        let (api, _) = self.start(spec, &version, None).await?;
        Ok(self.told(spec, requests::boot(&api, spec, false)).await?)
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
        loop {
            if self.process(dir)?.is_none() {
                return Err(VmmError::Gone(reason(dir)));
            }
            // Nobody listens while the guest boots.
            if let Ok(Ok(stream)) = timeout(CALL_PATIENCE, call(&dir.join(requests::VSOCK))).await {
                return Ok(Box::new(stream));
            }
            sleep(CALL_INTERVAL).await;
        }
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
        let [snapshot, memory] = [SNAPSHOT, MEMORY].map(|name| into.join(name));
        let saved = requests::save(&self.api(dir)?, &text(&snapshot), &text(&memory)).await;
        let written = match saved {
            Ok(()) => {
                let into = into.to_owned();
                let written = tokio::task::spawn_blocking(move || {
                    Manifest::write(&into, VmmKind::Firecracker, &identity, &[SNAPSHOT, MEMORY])
                });
                written.await.map_err(|error| SaveError::Control(silent(io::Error::other(error)))).flatten()
            }
            Err(error) => Err(crate::manifest::no_room(error, into)),
        };
        if written.is_err() {
            for file in [snapshot, memory] {
                let _ = fs::remove_file(file);
            }
        }
        written
    }

    async fn restore(&self, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError> {
        let manifest = Manifest::read(from)?;
        let version = self.usable().await?;
        let identity = Identity::new(spec, Acceleration::Kvm, &version);
        manifest.fits(from, VmmKind::Firecracker, &identity)?;
        let [snapshot, memory] = [SNAPSHOT, MEMORY].map(|name| text(&from.join(name)));
        let (api, _) = self.start(spec, &version, None).await?;
        match self.told(spec, requests::load(&api, spec, &snapshot, &memory)).await {
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
        clear(dir).map_err(|source| VmmError::File { action: "clear", path: dir.to_owned(), source })
    }
}

/// Waits until the monitor answers, or ends.
async fn is_set_up(spec: &MachineSpec, child: &mut Child) -> Result<Api, BootError> {
    let refused = |message| BootError::Refused { vmm: VmmKind::Firecracker, message };
    let api = Api::new(&socket(&spec.dir));
    let answers = async {
        while api.describe().await.is_err() {
            sleep(START_INTERVAL).await;
        }
    };
    let answered = tokio::select! {
        _ = child.wait() => {
            let said = fs::read_to_string(log_file(&spec.dir)).unwrap_or_default();
            Err(refused(if said.trim().is_empty() { "it ended at once".to_owned() } else { said.trim().to_owned() }))
        }
        answered = timeout(START_PATIENCE, answers) => {
            answered.map_err(|_| refused(format!("it did not set itself up within {START_PATIENCE:?}")))
        }
    };
    answered.map(|()| api)
}

/// Calls the guest by the monitor's own handshake.
async fn call(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {VSOCK_PORT}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte, as what follows the line is the guest's.
    while answer.last() != Some(&b'\n') {
        if answer.len() == LONGEST_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.push(stream.read_u8().await?);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// What Firecracker says that it is.
async fn version(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--version").kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix("Firecracker ") {
        Some(version) if output.status.success() => Ok(version.trim().to_owned()),
        _ => Err(io::Error::other("it does not say its version")),
    }
}

/// Makes the machine's directory what the monitor expects.
fn prepare(spec: &MachineSpec, version: &str) -> io::Result<()> {
    clear(&spec.dir)?;
    Identity::new(spec, Acceleration::Kvm, version).write(&spec.dir)?;
    symlink(fs::canonicalize(&spec.root.path)?, spec.dir.join(requests::ROOT))?;
    if let Some(data) = &spec.data {
        symlink(fs::canonicalize(&data.path)?, spec.dir.join(requests::DATA))?;
    }
    Ok(())
}

/// Why there is no process. The monitor does not say whether the guest ended it.
fn reason(dir: &Path) -> GoneReason {
    match pid_file(dir).exists() {
        true => GoneReason::Killed,
        false => GoneReason::NeverBooted,
    }
}

/// Removes what the driver keeps in a machine's directory.
fn clear(dir: &Path) -> io::Result<()> {
    let links = [requests::ROOT, requests::DATA, requests::VSOCK].map(|name| dir.join(name));
    for path in [pid_file(dir), socket(dir), log_file(dir), Identity::file(dir)].into_iter().chain(links) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
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

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn silent(error: io::Error) -> VmmError {
    VmmError::Silent { vmm: VmmKind::Firecracker, source: error.into() }
}
