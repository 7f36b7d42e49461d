//! The assembly of the parts on this host: the driver that runs machines, and their networks.

use emergent_types::error_chain;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use emergent_microvm::{
    Acceleration, Firecracker, FirecrackerSettings, JailChoice, Probe, Qemu, QemuSettings, Vmm, VmmKind, kernels,
};
use emergent_microvm_net::{NetworkClient, NetworkConfig, Networks, host_resolvers};

use crate::{
    HostInterfaces, Interfaces, ManagerConfig, NoInterfaces, Parts, Sandboxes, StartError, layout::Layout,
    step::Checkpoint, template,
};

/// The settings of the service on this host.
#[derive(Debug, Clone)]
pub struct Host {
    /// The settings of the manager.
    pub manager: ManagerConfig,
    /// The driver that runs machines.
    pub driver: DriverChoice,
    /// Whether Firecracker runs in jails.
    pub jail: JailChoice,
    /// The choice of machines' networks.
    pub network: NetworkChoice,
}

/// The choice of the driver that runs machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// The driver that the sandboxes and snapshots of this host have; if there are none, the best available driver.
    #[default]
    Auto,
    /// This driver.
    Only(VmmKind),
    /// QEMU, which emulates even where there is a KVM: for tests, and for hosts whose KVM runs no machine.
    Emulated,
}

/// The choice of machines' networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// This process if it runs as root, else none.
    #[default]
    Auto,
    /// No networks.
    None,
    /// The privileged helper behind this socket.
    Helper(PathBuf),
}

/// A text that is no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes {0}")]
pub struct InvalidChoice(&'static str);

/// The reason why the service cannot run on this host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no kernel to boot.
    #[error("there is no kernel in {}; run `emergent kernel import`", .0.display())]
    NoKernel(PathBuf),
    /// The manager cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
}

// === impl Host ===

impl Host {
    /// Takes over the sandboxes of this host.
    ///
    /// # Errors
    /// [`HostError`] names the missing part.
    pub async fn open(self, checkpoint: Checkpoint) -> Result<Sandboxes, HostError> {
        let layout = Layout::new(&self.manager.base);
        let choice = match self.driver {
            DriverChoice::Auto => in_use(&layout).map_or(DriverChoice::Auto, DriverChoice::Only),
            named @ (DriverChoice::Only(_) | DriverChoice::Emulated) => named,
        };
        let vmm = driver(choice, self.jail, &layout).await?;
        let (kind, network) = (vmm.kind(), network(self.network));
        let sandboxes = Sandboxes::start(self.manager, Parts { vmm, network, checkpoint }).await?;
        // Written by the process that has the directory to itself.
        if let Err(error) = std::fs::write(layout.driver(), kind.to_string()) {
            tracing::warn!(
                reason = error_chain(&error),
                "the driver cannot be noted; an automatic choice may be another next time"
            );
        }
        Ok(sandboxes)
    }
}

/// The driver of the existing sandboxes and snapshots: a machine of one driver cannot go on under another.
fn in_use(layout: &Layout) -> Option<VmmKind> {
    let is_empty = |directory| std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
    if is_empty(layout.sandboxes()) && is_empty(layout.named_snapshots()) {
        return None;
    }
    match std::fs::read_to_string(layout.driver()).ok()?.parse() {
        Ok(DriverChoice::Only(kind)) => Some(kind),
        Ok(DriverChoice::Auto | DriverChoice::Emulated) | Err(_) => None,
    }
}

/// Firecracker if machines boot under it, or if it was chosen; QEMU otherwise.
async fn driver(choice: DriverChoice, jail: JailChoice, layout: &Layout) -> Result<Arc<dyn Vmm>, HostError> {
    let kernel = kernels::find(layout.microvm(), template::DEFAULT).map_err(|error| {
        tracing::debug!(reason = error_chain(&error), "no kernel");
        HostError::NoKernel(layout.kernels())
    })?;
    let (probe_kernel, probes) = (Some(kernel), layout.probes());
    let qemu = QemuSettings {
        probe_kernel: probe_kernel.clone(),
        probe_dir: Some(probes.join("qemu")),
        ..QemuSettings::default()
    };
    let firecracker = Firecracker::new(FirecrackerSettings {
        jail,
        probe_kernel,
        probe_dir: Some(probes.join("firecracker")),
        ..FirecrackerSettings::default()
    });
    match choice {
        DriverChoice::Only(VmmKind::Qemu) => Ok(Arc::new(Qemu::new(qemu))),
        DriverChoice::Emulated => {
            Ok(Arc::new(Qemu::new(QemuSettings { acceleration: Some(Acceleration::Emulated), ..qemu })))
        }
        DriverChoice::Only(VmmKind::Firecracker) => Ok(Arc::new(firecracker)),
        DriverChoice::Auto => match firecracker.probe().await {
            Probe::Works { .. } => Ok(Arc::new(firecracker)),
            Probe::Fails { reason } => {
                tracing::info!(reason, "no machines under Firecracker; QEMU runs them");
                Ok(Arc::new(Qemu::new(qemu)))
            }
        },
    }
}

fn network(choice: NetworkChoice) -> Arc<dyn Interfaces> {
    match choice {
        NetworkChoice::Helper(socket) => Arc::new(HostInterfaces::new(Arc::new(NetworkClient::new(&socket)))),
        NetworkChoice::Auto if rustix::process::geteuid().is_root() => {
            let config = NetworkConfig { resolvers: host_resolvers(), ..NetworkConfig::default() };
            Arc::new(HostInterfaces::new(Arc::new(Networks::new(config))))
        }
        NetworkChoice::Auto => {
            let reason =
                "this process may not make interfaces; run `emergent firecracker net-helper` and name its socket";
            Arc::new(NoInterfaces { reason: reason.to_owned() })
        }
        NetworkChoice::None => Arc::new(NoInterfaces { reason: "networks are switched off".to_owned() }),
    }
}

impl FromStr for DriverChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "firecracker" => Ok(Self::Only(VmmKind::Firecracker)),
            "qemu" => Ok(Self::Only(VmmKind::Qemu)),
            "qemu-tcg" => Ok(Self::Emulated),
            _ => Err(InvalidChoice("auto, firecracker, qemu or qemu-tcg")),
        }
    }
}

impl FromStr for NetworkChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            path if Path::new(path).is_absolute() => Ok(Self::Helper(path.into())),
            _ => Err(InvalidChoice("auto, none, or the absolute path of the network helper's socket")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_kept_for_as_long_as_something_is_there_that_runs_under_it() {
        let base = tempfile::tempdir().unwrap();
        let layout = Layout::new(base.path());
        assert_eq!(in_use(&layout), None);
        layout.make().unwrap();
        std::fs::write(layout.driver(), "qemu").unwrap();
        assert_eq!(in_use(&layout), None, "nothing runs under it");
        for directory in [layout.sandboxes(), layout.named_snapshots()] {
            let one = directory.join("one");
            std::fs::create_dir(&one).unwrap();
            assert_eq!(in_use(&layout), Some(VmmKind::Qemu));
            std::fs::remove_dir(&one).unwrap();
        }
        std::fs::create_dir(layout.sandboxes().join("one")).unwrap();
        std::fs::write(layout.driver(), "another").unwrap();
        assert_eq!(in_use(&layout), None);
    }
}
