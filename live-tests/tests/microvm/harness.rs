//! The kernel, the disks and the driver of the machines here, and a machine that ends with its case.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use base64::Engine as _;
use emergent_guest_client::{Guest, Open};
use emergent_guest_proto::{machine::Restored, tools::BashRequest};
use emergent_live_tests::microvm;
use emergent_microvm::{
    Acceleration, Disk, Kernel, Layout, MachineId, MachineSpec, Qemu, QemuChannels, QemuSettings, Vmm, disks, images,
    kernels,
};
use emergent_provider::{ByteStream, ChannelError};
use tokio::time::Instant;

/// The kernel and the root file system that were made ready.
const NAME: &str = "default";
const MEMORY_MIB: u32 = 256;

/// How long an emulated machine may take to answer, on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

fn layout() -> anyhow::Result<Layout> {
    Ok(Layout::new(microvm::prepared().context("LIVE_MICROVM is not set")?))
}

/// A driver that emulates: the probe of KVM has a case of its own.
pub(crate) fn qemu(channels: QemuChannels) -> Arc<Qemu> {
    let acceleration = Some(Acceleration::Emulated);
    Arc::new(Qemu::new(QemuSettings { acceleration, channels, ..QemuSettings::default() }))
}

/// The kernel that machines boot.
pub(crate) fn kernel() -> anyhow::Result<Kernel> {
    Ok(kernels::find(&layout()?, NAME)?)
}

/// A machine and its guest. Dropping it ends the machine.
pub(crate) struct Machine {
    pub(crate) vmm: Arc<dyn Vmm>,
    pub(crate) spec: MachineSpec,
    pub(crate) guest: Guest,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// A machine that boots under QEMU, with a root of its own and a data disk.
    pub(crate) async fn boot() -> anyhow::Result<Self> {
        Self::boot_on(qemu(QemuChannels::Serial)).await
    }

    /// The same under any monitor.
    pub(crate) async fn boot_on(vmm: Arc<dyn Vmm>) -> anyhow::Result<Self> {
        let machine = Self::off(vmm).await?;
        machine.turn_on().await?;
        Ok(machine)
    }

    /// A machine with a root of its own and a data disk, before its boot.
    pub(crate) async fn off(vmm: Arc<dyn Vmm>) -> anyhow::Result<Self> {
        let kind = vmm.kind();
        Self::prepared(vmm, move |folder| {
            let root = disks::from_image(&images::root(&layout()?, NAME), &folder.join("root"), kind)?.0;
            let data = disks::empty(&folder.join("data"), 1 << 30)?;
            Ok((root, data))
        })
        .await
    }

    /// Boots, and waits until the guest answers.
    pub(crate) async fn turn_on(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.vmm.boot(&self.spec).await.context("booting")?;
        self.answers().await?;
        println!("boot to the first answer: {:?}", began.elapsed());
        Ok(())
    }

    /// A machine that is restored from the saved state of another, with clones of that one's disks.
    pub(crate) async fn restored(from: &Path, original: &Self) -> anyhow::Result<Self> {
        let (root, data) = (original.spec.root.clone(), original.spec.data.clone().context("no data disk")?);
        let machine = Self::prepared(Arc::clone(&original.vmm), move |folder| {
            Ok((disks::clone(&root, &folder.join("root"))?.0, disks::clone(&data, &folder.join("data"))?.0))
        })
        .await?;
        machine.restore(from, true).await?;
        Ok(machine)
    }

    async fn prepared(
        vmm: Arc<dyn Vmm>,
        disks: impl FnOnce(&Path) -> anyhow::Result<(Disk, Disk)> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let (kernel, (root, data)) =
            tokio::task::spawn_blocking(move || anyhow::Ok((kernel()?, disks(&path)?))).await??;
        let dir = folder.path().join("vm");
        fs::create_dir(&dir)?;
        let spec = MachineSpec {
            id: MachineId::generate(),
            dir: dir.clone(),
            kernel,
            root,
            data: Some(data),
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            network: None,
            processes: None,
        };
        let guest = Guest::new(Arc::new(Opener { vmm: Arc::clone(&vmm), dir }), None);
        Ok(Self { vmm, spec, guest, _folder: folder })
    }

    /// Restores this machine, and tells the guest.
    pub(crate) async fn restore(&self, from: &Path, copy: bool) -> anyhow::Result<()> {
        let began = Instant::now();
        self.vmm.restore(&self.spec, from).await.context("restoring")?;
        let entropy: [u8; 64] = rand::random();
        let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let entropy = base64::engine::general_purpose::STANDARD.encode(entropy);
        self.answers().await?;
        let name = |name: String| copy.then_some(name);
        let (host_name, machine_id) = (name(self.spec.id.host_name()), name(self.spec.id.machine_id()));
        let restored = Restored { now_ms, entropy, copy, host_name, machine_id, network: None };
        self.guest.restored(&restored).await.context("telling the guest")?;
        self.sh("true").await?;
        println!("restore to the first command done: {:?}", began.elapsed());
        Ok(())
    }

    /// Brings the machine to disk, ends its process, and makes it go on in another.
    pub(crate) async fn pass_through_disk(&self, into: &Path) -> anyhow::Result<()> {
        self.save(into).await?;
        self.vmm.end(&self.spec.dir).await?;
        self.restore(into, false).await
    }

    /// Freezes the machine and saves its state.
    pub(crate) async fn save(&self, into: &Path) -> anyhow::Result<()> {
        self.guest.suspend();
        self.vmm.freeze(&self.spec.dir).await.context("freezing")?;
        fs::create_dir_all(into)?;
        let began = Instant::now();
        self.vmm.save(&self.spec.dir, into).await.context("saving")?;
        println!("saved in {:?}", began.elapsed());
        Ok(())
    }

    /// Runs a command as the agent; returns its output, without the white space around it.
    pub(crate) async fn sh(&self, command: &str) -> anyhow::Result<String> {
        let request: BashRequest = serde_json::from_value(serde_json::json!({ "command": command }))?;
        let result = self.guest.bash(request).await.with_context(|| format!("running {command}"))?;
        ensure!(result.exit_code == Some(0), "{command}: {result:?}");
        Ok(result.stdout.trim().to_owned())
    }

    /// Waits until the guest answers.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.guest.hello().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error).context("the guest does not answer"),
                Err(_) => {
                    let state = self.vmm.state(&self.spec.dir).await?;
                    ensure!(
                        !matches!(state, emergent_microvm::MachineState::Gone(_)),
                        "the machine is gone: {state:?}"
                    );
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let (vmm, dir) = (Arc::clone(&self.vmm), self.spec.dir.clone());
        // A case that failed has said so already.
        let end = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
            executor.map(|executor| executor.block_on(vmm.end(&dir))).ok()
        });
        drop(end.join());
    }
}

struct Opener {
    vmm: Arc<dyn Vmm>,
    dir: PathBuf,
}

#[async_trait]
impl Open for Opener {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let opened = self.vmm.open(&self.dir).await;
        opened.map_err(|error| match error {
            emergent_microvm::VmmError::Gone(_) => ChannelError::NotRunning,
            error => ChannelError::Refused { engine: "the monitor".to_owned(), source: error.into() },
        })
    }
}
