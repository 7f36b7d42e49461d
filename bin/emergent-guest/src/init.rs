//! From the kernel's first process to the workspace's daemon, and to the machine's end.
//!
//! ```text
//!   initial file system            the machine's own disk
//!   mounts, modules, disks ─exec─► mounts, network, serve ──► power off
//! ```
//!
//! The program replaces itself in between, to begin again with the environment of the image.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use emergent_guest_proto::{IMAGE_ENVIRONMENT, WORKSPACE_DIR, machine::PROBE_ANSWER};
use rustix::system::{RebootCommand, reboot};

use crate::{
    args,
    machine::{identity, modules, mounts, network, settings::MachineSettings},
    own_files, serve,
};

/// The directory of the modules in the initial file system. Its existence tells which stage this is.
const MODULES: &str = "/.emergent-modules";

/// The directory on which the root file system is mounted before it becomes the root.
const NEW_ROOT: &str = "/new-root";

/// The time that a disk may take to show itself.
const DISK_PATIENCE: Duration = Duration::from_secs(10);
const DISK_INTERVAL: Duration = Duration::from_millis(5);

/// The time that the machine's end may take after it has been asked for.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Is the machine's first process, until the machine is turned off.
pub fn run() {
    let settings = match begin() {
        Ok((settings, served)) => {
            if let Err(error) = served {
                tracing::error!("the workspace's daemon ended: {error:#}");
            }
            settings
        }
        Err(error) => {
            tracing::error!("the machine cannot be set up: {error:#}");
            MachineSettings::default()
        }
    };
    end(&settings);
}

fn begin() -> anyhow::Result<(MachineSettings, Result<(), serve::ServeError>)> {
    // It is shown in lists of processes, where it would be named after the link that it was started by.
    let _ = rustix::thread::set_name(c"emergent-guest");
    mounts::kernel()?;
    let settings = MachineSettings::read(&fs::read_to_string("/proc/cmdline")?);
    if Path::new(MODULES).is_dir() {
        modules::load(Path::new(MODULES));
        if settings.probe {
            fs::write("/dev/console", format!("\n{PROBE_ANSWER}\n"))?;
            return Ok((settings, Ok(())));
        }
        match go_to_disk(&settings)? {}
    }
    mounts::programs()?;
    if let Some(data) = &settings.data {
        mounts::disk(data, Path::new(WORKSPACE_DIR), false)?;
    }
    if let Err(error) = identity::assume(settings.host_name.as_deref(), settings.machine_id.as_deref()) {
        tracing::error!("the machine's identity cannot be set: {error}");
    }
    if let Err(error) = set_up_network(&settings) {
        // The host still reaches the guest, and can see why nothing else does.
        tracing::error!("the network cannot be set up: {error}");
    }
    let daemon = args::Settings { nproc: settings.nproc, machine: Some(settings.clone()), ..Default::default() };
    let served = serve::run(daemon);
    Ok((settings, served))
}

fn set_up_network(settings: &MachineSettings) -> io::Result<()> {
    network::loopback()?;
    settings.network.as_ref().map_or(Ok(()), |network| network::configure(network, None))
}

/// Goes on with the root file system on its disk, in the environment of the image that it was made from.
fn go_to_disk(settings: &MachineSettings) -> anyhow::Result<Infallible> {
    let device = settings.root.clone().unwrap_or_else(|| PathBuf::from("/dev/vda"));
    for disk in [Some(&device), settings.data.as_ref()].into_iter().flatten() {
        wait_for(disk)?;
    }
    mounts::disk(&device, Path::new(NEW_ROOT), settings.read_only)
        .map_err(|error| anyhow::anyhow!("mounting {}: {error}", device.display()))?;
    // Opened by what it is, not by name: the name is gone with the initial file system.
    let program = PathBuf::from("/proc/self/exe");
    free_modules();
    mounts::become_root(Path::new(NEW_ROOT))?;
    let environment: Vec<(String, String)> = match own_files::read(Path::new(IMAGE_ENVIRONMENT))? {
        Some(text) => serde_json::from_slice(&text)?,
        None => Vec::new(),
    };
    Err(Command::new(program).arg("init").env_clear().envs(environment).exec().into())
}

fn wait_for(disk: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + DISK_PATIENCE;
    while !disk.exists() {
        anyhow::ensure!(Instant::now() < deadline, "there is no disk {}", disk.display());
        std::thread::sleep(DISK_INTERVAL);
    }
    Ok(())
}

/// Gives back the memory of modules that are loaded.
fn free_modules() {
    let _ = fs::remove_dir_all(MODULES);
}

/// Turns the machine off.
fn end(settings: &MachineSettings) {
    mounts::flush();
    let how = if settings.restart_to_end { RebootCommand::Restart } else { RebootCommand::PowerOff };
    if let Err(error) = reboot(how) {
        tracing::error!("the machine cannot be turned off: {error}");
    }
    // Powering off may take the firmware a moment; the kernel panics when its first process ends.
    std::thread::sleep(END_PATIENCE);
}
