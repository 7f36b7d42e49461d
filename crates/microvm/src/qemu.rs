//! Machines run by QEMU: its small `microvm` machine, on KVM where that works, emulated elsewhere.
//!
//! QEMU runs as a process of its own, independent of this one. The machine's directory has the number of the process,
//! sockets for commands and channels, and nothing that the machine needs for good. When the guest ends by itself, QEMU
//! stays so that it can be asked for the reason; the first caller that asks writes the reason down and ends QEMU.

#[cfg(target_arch = "x86_64")]
mod clock;
mod command;
mod probe;
mod qmp;
mod save;

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use emergent_provider::ByteStream;
use serde_json::json;
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
    time::{sleep, timeout},
};

use self::{command::Start, qmp::Qmp};
use crate::{
    Acceleration, BootError, GoneReason, Kernel, MachineSpec, MachineState, Probe, RestoreError, SaveError, Vmm,
    VmmError, VmmKind,
    identity::Identity,
    ports::{self, Port},
    process::Process,
    vsock,
};

/// The time that QEMU may take to set itself up.
const START_PATIENCE: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_millis(2);

/// The file with the reason why the machine is gone, once it is known.
const REASON: &str = "gone.json";

/// The settings of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSettings {
    /// The path of QEMU's program.
    pub program: PathBuf,
    /// The kernel that is booted to test whether machines boot. Without one every test fails, with a message about it.
    pub probe_kernel: Option<Kernel>,
    /// The directory of the test machine, made if it is missing; `None` takes a temporary directory that is removed
    /// again. A test machine that an earlier process has left in the directory is ended.
    pub probe_dir: Option<PathBuf>,
    /// The acceleration of machines; `None` takes what the test finds, KVM before emulation.
    pub acceleration: Option<Acceleration>,
    /// The transport of channels to guests.
    pub channels: QemuChannels,
}

/// The transport of channels to the guest of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QemuChannels {
    /// Serial ports of QEMU's own, which are saved and restored with the machine.
    #[default]
    Serial,
    /// Vsock, as under Firecracker, by a vhost-user device: a process beside QEMU that the caller runs. It waits for
    /// QEMU at `vhost-vsock.sock` in the machine's directory before the boot, and for calls to the guest at
    /// `vsock.sock`. QEMU refuses to save such a machine.
    Vsock,
}

/// The driver. Cheap to make: all state of machines is in their directories. Clones are the same driver.
#[derive(Debug, Clone)]
pub struct Qemu {
    settings: QemuSettings,
    version: Arc<OnceCell<String>>,
    probed: Arc<OnceCell<Probe>>,
}

// === impl QemuSettings ===

impl Default for QemuSettings {
    fn default() -> Self {
        Self {
            program: program_of_this_machine(),
            probe_kernel: None,
            probe_dir: None,
            acceleration: None,
            channels: QemuChannels::default(),
        }
    }
}

// === impl Qemu ===

impl Qemu {
    /// Makes a driver; starts nothing yet.
    pub fn new(settings: QemuSettings) -> Self {
        Self { settings, version: Arc::default(), probed: Arc::default() }
    }

    /// Returns the acceleration of machines and QEMU's version.
    async fn usable(&self) -> Result<(Acceleration, String), BootError> {
        let unsupported = |reason| BootError::Unsupported { vmm: VmmKind::Qemu, reason };
        // Where there is nothing to choose, the machine that is wanted shows by itself whether it boots.
        if let Some(acceleration) = self.settings.acceleration {
            return Ok((acceleration, self.version().await.map_err(unsupported)?));
        }
        match self.probe().await {
            Probe::Works { acceleration, version, .. } => Ok((acceleration, version)),
            Probe::Fails { reason } => Err(unsupported(reason)),
        }
    }

    /// Returns QEMU's version; an error is a sentence for people.
    async fn version(&self) -> Result<String, String> {
        let program = &self.settings.program;
        let asked = self.version.get_or_try_init(|| probe::version(program)).await.cloned();
        asked.map_err(|error| format!("{} does not start ({error}); install qemu-system-x86", program.display()))
    }

    /// Starts QEMU; it has made its sockets when this returns. The process lives on without the answer, unless it is a
    /// probe's.
    async fn start(
        &self,
        spec: &MachineSpec,
        acceleration: Acceleration,
        version: &str,
        start: Start,
    ) -> Result<Child, BootError> {
        if self.process(&spec.dir).is_ok_and(|process| process.is_some()) {
            return Err(BootError::Occupied { dir: spec.dir.clone() });
        }
        clear(&spec.dir).map_err(|source| BootError::File { action: "clear", path: spec.dir.clone(), source })?;
        let identity = Identity::new(spec, acceleration, version).write(&spec.dir);
        identity.map_err(|source| BootError::File { action: "write", path: Identity::file(&spec.dir), source })?;
        let file = |action, path: PathBuf| move |source| BootError::File { action, path, source };
        let log = log_file(&spec.dir);
        let output = fs::File::create(&log).map_err(file("make", log))?;
        let mut command = Command::new(&self.settings.program);
        command.args(command::arguments(spec, acceleration, start, self.settings.channels));
        // Signals that are meant for us and our terminal are not meant for machines.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        command.kill_on_drop(start == Start::Probe);
        let mut child = command.spawn().map_err(|source| BootError::NoProgram {
            program: self.settings.program.display().to_string(),
            advice: "install qemu-system-x86, or name the program",
            source,
        })?;
        // Before anything is waited for: from here on the process is found again.
        let pid_file = command::pid_file(&spec.dir);
        let number = child.id().unwrap_or_default().to_string();
        let started = match fs::write(&pid_file, number) {
            Ok(()) => self.is_set_up(spec, &mut child).await,
            Err(error) => Err(file("write", pid_file)(error)),
        };
        if started.is_err() {
            // What it has made so far means nothing; that it could not be killed means that it has ended.
            let _ = child.kill().await;
            let _ = clear(&spec.dir);
        }
        // It is waited for by the runtime when it ends, and by nobody else.
        started.map(|()| child)
    }

    /// Waits until QEMU answers, or ends.
    async fn is_set_up(&self, spec: &MachineSpec, child: &mut Child) -> Result<(), BootError> {
        let refused = |message| BootError::Refused { vmm: VmmKind::Qemu, message };
        let answers = async {
            while Qmp::connect(&command::question_socket(&spec.dir)).await.is_err() {
                sleep(START_INTERVAL).await;
            }
        };
        tokio::select! {
            _ = child.wait() => {
                let said = fs::read_to_string(log_file(&spec.dir)).unwrap_or_default();
                Err(refused(if said.trim().is_empty() { "it ended at once".to_owned() } else { said.trim().to_owned() }))
            }
            answered = timeout(START_PATIENCE, answers) => {
                answered.map_err(|_| refused(format!("it did not set itself up within {START_PATIENCE:?}")))
            }
        }
    }

    fn process(&self, dir: &Path) -> Result<Option<Process>, VmmError> {
        let pid_file = command::pid_file(dir);
        Process::find(&pid_file, dir.as_os_str().as_bytes()).map_err(|source| VmmError::File {
            action: "read",
            path: pid_file,
            source,
        })
    }

    /// Returns the reason why there is no process.
    fn reason(dir: &Path) -> GoneReason {
        let noted = fs::read(dir.join(REASON)).ok().and_then(|text| serde_json::from_slice::<Noted>(&text).ok());
        match noted {
            Some(Noted { panic: Some(message) }) => GoneReason::Panicked { message },
            Some(Noted { panic: None }) => GoneReason::Exited,
            None if command::pid_file(dir).exists() => GoneReason::Killed,
            None => GoneReason::NeverBooted,
        }
    }

    /// Turns `error` into [`VmmError::Gone`] if its cause is that the machine is gone.
    async fn explain(&self, dir: &Path, error: VmmError) -> VmmError {
        match self.process(dir) {
            Ok(None) => VmmError::Gone(Self::reason(dir)),
            _ => error,
        }
    }

    async fn control(&self, dir: &Path) -> Result<Qmp, VmmError> {
        match Qmp::connect(&command::control_socket(dir)).await {
            Ok(qmp) => Ok(qmp),
            Err(error) => Err(self.explain(dir, error).await),
        }
    }

    async fn tell(&self, dir: &Path, action: &'static str, command: &str) -> Result<(), VmmError> {
        match self.control(dir).await?.command(action, command, json!({})).await {
            Ok(_) => Ok(()),
            Err(error @ VmmError::Silent { .. }) => Err(self.explain(dir, error).await),
            Err(error) => Err(error),
        }
    }

    /// Asks QEMU for the machine's state.
    async fn ask_state(&self, dir: &Path) -> Result<MachineState, VmmError> {
        let mut questions = Qmp::connect(&command::question_socket(dir)).await?;
        let status = questions.command("say how the machine is", "query-status", json!({})).await?;
        match status.get("status").and_then(serde_json::Value::as_str).unwrap_or_default() {
            "running" => Ok(MachineState::Running),
            "shutdown" | "guest-panicked" | "internal-error" => {
                let reason = Noted { panic: panic_message(&console(&mut questions).await?) };
                note(dir, &reason)?;
                drop(questions);
                self.end_process(dir).await?;
                Ok(MachineState::Gone(Self::reason(dir)))
            }
            _ => Ok(MachineState::Frozen),
        }
    }

    async fn end_process(&self, dir: &Path) -> Result<(), VmmError> {
        let Some(process) = self.process(dir)? else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || process.end()).await;
        let ended = ended.map_err(io::Error::other).and_then(|ended| ended);
        ended.map_err(|source| VmmError::File { action: "end the process of", path: dir.to_owned(), source })
    }
}

#[async_trait]
impl Vmm for Qemu {
    fn kind(&self) -> VmmKind {
        VmmKind::Qemu
    }

    async fn probe(&self) -> Probe {
        let Some(kernel) = self.settings.probe_kernel.clone() else {
            // Not remembered: one may be imported.
            return Probe::Fails { reason: crate::NO_KERNEL.to_owned() };
        };
        let qemu = self.clone();
        crate::vmm::to_the_end(async move { qemu.probed.get_or_init(|| probe::probe(&qemu, &kernel)).await.clone() })
            .await
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), BootError> {
        let (acceleration, version) = self.usable().await?;
        self.start(spec, acceleration, &version, Start::Boot).await.map(drop)
    }

    async fn state(&self, dir: &Path) -> Result<MachineState, VmmError> {
        if self.process(dir)?.is_none() {
            return Ok(MachineState::Gone(Self::reason(dir)));
        }
        match self.ask_state(dir).await {
            Err(error) => match self.explain(dir, error).await {
                VmmError::Gone(reason) => Ok(MachineState::Gone(reason)),
                error => Err(error),
            },
            state => state,
        }
    }

    async fn open(&self, dir: &Path) -> Result<ByteStream, VmmError> {
        let alive = || async {
            match self.state(dir).await? {
                MachineState::Gone(reason) => Err(VmmError::Gone(reason)),
                MachineState::Running | MachineState::Frozen => Ok(()),
            }
        };
        if self.settings.channels == QemuChannels::Vsock {
            return Ok(Box::new(vsock::open(dir, alive).await?));
        }
        let port = match Port::take(dir).await {
            Ok(port) => port.ok_or(VmmError::NoFreeChannel { limit: ports::PORTS })?,
            Err(source) => {
                alive().await?;
                return Err(VmmError::Silent { vmm: VmmKind::Qemu, source: source.into() });
            }
        };
        Ok(Box::new(port.agree(alive).await?))
    }

    async fn freeze(&self, dir: &Path) -> Result<(), VmmError> {
        self.tell(dir, "freeze the machine", "stop").await
    }

    async fn thaw(&self, dir: &Path) -> Result<(), VmmError> {
        self.tell(dir, "let the machine go on", "cont").await
    }

    async fn save(&self, dir: &Path, into: &Path) -> Result<(), SaveError> {
        save::save(self, dir, into).await
    }

    async fn restore(&self, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError> {
        save::restore(self, spec, from).await
    }

    async fn end(&self, dir: &Path) -> Result<(), VmmError> {
        self.end_process(dir).await?;
        clear(dir).map_err(|source| VmmError::File { action: "clear", path: dir.to_owned(), source })
    }
}

// === impl VmmError ===

impl From<io::Error> for VmmError {
    fn from(source: io::Error) -> Self {
        Self::Silent { vmm: VmmKind::Qemu, source: source.into() }
    }
}

/// The reason why a machine is gone, as it is written down.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Noted {
    panic: Option<String>,
}

fn note(dir: &Path, reason: &Noted) -> Result<(), VmmError> {
    let path = dir.join(REASON);
    let aside = path.with_extension("new");
    let written = serde_json::to_vec(reason).map_err(io::Error::from).and_then(|text| fs::write(&aside, text));
    written.and_then(|()| fs::rename(&aside, &path)).map_err(|source| VmmError::File { action: "write", path, source })
}

/// Returns the end of the machine's console output. The guest can write anything there.
async fn console(qmp: &mut Qmp) -> Result<String, VmmError> {
    let arguments = json!({"device": command::CONSOLE, "size": command::CONSOLE_BYTES, "format": "utf8"});
    let text = qmp.command("show the console", "ringbuf-read", arguments).await?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

/// Returns the kernel's message if it panicked.
fn panic_message(console: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let line = console.lines().rev().find_map(|line| Some(line.split_once("Kernel panic - not syncing: ")?.1))?;
    Some(line.chars().filter(|character| !character.is_control()).take(LONGEST).collect())
}

/// Removes the driver's files from a machine's directory.
fn clear(dir: &Path) -> io::Result<()> {
    let ports = (0..ports::PORTS).flat_map(|number| [ports::socket(dir, number), ports::lock_file(dir, number)]);
    let own = [command::pid_file(dir), command::control_socket(dir), command::question_socket(dir), dir.join(REASON)];
    let own = own.into_iter().chain([Identity::file(dir), log_file(dir)]);
    for path in own.chain(ports) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the path of the file with QEMU's error messages.
fn log_file(dir: &Path) -> PathBuf {
    dir.join("vmm.log")
}

fn program_of_this_machine() -> PathBuf {
    format!("qemu-system-{}", std::env::consts::ARCH).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_panic_on_the_console_is_the_reason() {
        let console = "booting\n[    1.0] Kernel panic - not syncing: sysrq triggered crash\u{1b}[0m\nrebooting";
        assert_eq!(panic_message(console).as_deref(), Some("sysrq triggered crash[0m"));
        assert_eq!(panic_message("[ 1.0] reboot: Power down"), None);
    }
}
