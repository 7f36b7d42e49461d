//! Booting a sandbox's machine from its disks, for the first time or again, until its guest answers.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use emergent_guest_client::GuestCallError;
use emergent_guest_proto::{
    Configuration, Hello,
    machine::{NetworkSettings, Restored},
};
use emergent_microvm::{Disk, MachineId, MachineSpec, MachineState, TapInterface, VmmError};
use tokio::time::Instant;

use super::{Inner, entry::Entry};
use crate::{
    SandboxError,
    record::{Phase, Record},
    step::BootStep,
    template,
};

/// The time to wait between two tries to reach a guest.
const RETRY: Duration = Duration::from_millis(20);
/// The number of times that a frozen machine is told to go on, and the pause in between.
const THAW_TRIES: u32 = 3;
const THAW_PAUSE: Duration = Duration::from_millis(300);
/// The time that the guest of a machine that goes on may take to be told the time.
const WAKE_DEADLINE: Duration = Duration::from_secs(30);

impl Inner {
    /// Boots the machine and makes its sandbox ready. What fails leaves things as they are, for the caller to undo.
    pub(super) async fn boot(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.boot_machine(entry).await?;
        self.make_ready(entry).await
    }

    /// Boots the machine and waits for its guest, which is nobody's yet. The sandbox has its disks and its place.
    pub(super) async fn boot_machine(&self, entry: &Entry) -> Result<(), SandboxError> {
        let record = entry.record();
        let kernel = template::find(&self.layout, &record.template)?.kernel;
        let tap = self.attach(entry).await?;
        self.pass(BootStep::NetworkAttached.name()).await;
        let spec = self.spec(&record, kernel, tap);
        self.vmm.boot(&spec).await.map_err(SandboxError::Boot)?;
        self.pass(BootStep::MachineBooted.name()).await;
        self.first_answer(entry).await
    }

    /// Makes the sandbox of a guest that has answered the caller's.
    pub(super) async fn make_ready(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.configure(entry).await?;
        self.pass(BootStep::GuestAnswered.name()).await;
        self.record(entry, Phase::Ready, None)?;
        self.pass(BootStep::ReadyRecorded.name()).await;
        Ok(())
    }

    /// Makes a sandbox's network interface, for whom its monitor runs as, or finds it again.
    pub(super) async fn attach(&self, entry: &Entry) -> Result<Option<TapInterface>, SandboxError> {
        let owner = self.vmm.user(entry.id.as_uuid().into());
        self.network.attach(entry.id, entry.record().network, owner).await.map_err(SandboxError::Network)
    }

    pub(super) fn spec(
        &self,
        record: &Record,
        kernel: emergent_microvm::Kernel,
        network: Option<TapInterface>,
    ) -> MachineSpec {
        let id = record.id();
        MachineSpec {
            id: id.as_uuid().into(),
            dir: self.layout.sandbox(id),
            kernel,
            root: Disk { format: record.root_format.into(), ..Disk::raw(self.layout.root_disk(id)) },
            data: Some(Disk::raw(self.layout.data_disk(id))),
            memory_mib: record.memory_mb,
            vcpus: record.vcpu_count,
            network,
            processes: record.pids,
        }
    }

    /// Waits until the guest has answered once, as long as its machine is there.
    pub(super) async fn first_answer(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.until_answered(entry, || entry.guest().hello()).await
    }

    /// Tells a restored guest the time, random bytes of its own and its network, a copy its names, too, and waits until
    /// it knows.
    pub(super) async fn wake(
        &self,
        entry: &Entry,
        network: Option<&TapInterface>,
        copy: bool,
    ) -> Result<(), SandboxError> {
        let network = network.map(|tap| NetworkSettings {
            mac: Some(tap.mac.to_string()),
            address: tap.address,
            prefix: tap.prefix,
            gateway: tap.gateway,
            name_servers: tap.name_servers.clone(),
        });
        let machine = MachineId::from(entry.id.as_uuid());
        let names = copy.then(|| (machine.host_name(), machine.machine_id()));
        self.until_answered(entry, || {
            let now_ms = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
            // Other bytes at each try: those of a try that came to nothing may be known to a sibling.
            let entropy = BASE64_STANDARD.encode(rand::random::<[u8; 64]>());
            let (host_name, machine_id) = names.clone().unzip();
            let restored = Restored { now_ms, entropy, copy, host_name, machine_id, network: network.clone() };
            async move { entry.guest().restored(&restored).await }
        })
        .await
    }

    /// Has a frozen machine go on, and tells its guest the time: its clock stood still. A monitor that does not do so
    /// at once is asked again.
    ///
    /// # Errors
    /// When the machine does not go on. A guest that cannot be told is a warning: it goes on, too.
    pub(super) async fn thaw(&self, entry: &Entry) -> Result<(), SandboxError> {
        let directory = self.directory(entry);
        let mut tries = 1;
        while let Err(error) = self.vmm.thaw(&directory).await {
            if tries == THAW_TRIES || matches!(error, VmmError::Gone(_)) {
                return Err(SandboxError::vmm("thaw the machine")(error));
            }
            tracing::warn!(sandbox = %entry.id, reason = emergent_types::error_chain(&error), "a machine does not go on yet");
            tries += 1;
            tokio::time::sleep(THAW_PAUSE).await;
        }
        let woken = tokio::time::timeout(WAKE_DEADLINE, self.wake(entry, None, false)).await;
        if let Err(error) = woken.unwrap_or_else(|_| Err(SandboxError::Ended("it did not answer in time".to_owned()))) {
            tracing::warn!(sandbox = %entry.id, reason = emergent_types::error_chain(&error), "a machine goes on with a clock that is behind");
        }
        Ok(())
    }

    /// Has a machine go on that stood still for something that is over. One that does not is ended, so that its state
    /// says that it does not run.
    ///
    /// # Errors
    /// When the machine did not go on.
    pub(super) async fn thaw_or_stop(&self, entry: &Entry, after: &str) -> Result<(), SandboxError> {
        let Err(error) = self.thaw(entry).await else { return Ok(()) };
        let reason = format!(
            "its machine did not go on after {after}: {}; its files are kept, its processes are lost",
            emergent_types::error_chain(&error)
        );
        self.fall_to_stopped(entry, reason).await?;
        Err(error)
    }

    /// Asks again until there is an answer, the machine is gone, or the time is over.
    async fn until_answered<F>(&self, entry: &Entry, ask: impl Fn() -> F) -> Result<(), SandboxError>
    where
        F: Future<Output = Result<Hello, GuestCallError>>,
    {
        let deadline = Instant::now() + self.config.boot_deadline;
        let directory = self.directory(entry);
        loop {
            let error = match tokio::time::timeout_at(deadline, ask()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            self.require_machine(&directory).await?;
            match error {
                Some(GuestCallError::Refused(refusal)) => return Err(SandboxError::Guest(refusal.into())),
                Some(error) if Instant::now() < deadline => {
                    tracing::debug!(sandbox = %entry.id, reason = emergent_types::error_chain(&error), "the guest does not answer yet");
                    tokio::time::sleep(RETRY).await;
                }
                Some(error) => return Err(SandboxError::Guest(error)),
                None => return Err(SandboxError::Ended("it did not answer in time".to_owned())),
            }
        }
    }

    /// Makes the sandbox's guest the caller's, where the caller does not do so itself.
    pub(super) async fn configure(&self, entry: &Entry) -> Result<(), SandboxError> {
        if entry.record().hand_over_later {
            return Ok(());
        }
        let configuration = Configuration { allow_root: true, ..Configuration::default() };
        entry.guest().configure(&configuration).await.map_err(SandboxError::Guest)
    }

    async fn require_machine(&self, directory: &Path) -> Result<(), SandboxError> {
        match self.vmm.state(directory).await {
            Ok(MachineState::Gone(reason)) => Err(SandboxError::Ended(reason.to_string())),
            Ok(MachineState::Running | MachineState::Frozen) | Err(_) => Ok(()),
        }
    }
}
