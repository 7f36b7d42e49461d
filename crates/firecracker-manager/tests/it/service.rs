//! A manager on a base directory of its own, that can be ended at any step and started again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use emergent_firecracker_manager::{
    ManagerConfig, NoInterfaces, Parts, SandboxError, SandboxId, Sandboxes, StartError, admission::Budget,
    step::Checkpoint,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::Notify};

use crate::monitor::{Driver, Monitor};

/// The time that anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A base directory and the machines of its host.
pub(crate) struct Host {
    pub(crate) base: PathBuf,
    /// The boot of the host.
    pub(crate) boot: uuid::Uuid,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) budget: Budget,
    /// The interval at which machines are looked after.
    pub(crate) watch_interval: Duration,
    /// The number of snapshots of templates that are kept.
    pub(crate) template_snapshots: u16,
    /// The directory of the base, unless somebody else keeps it.
    pub(crate) _directory: Option<TempDir>,
}

/// A manager on a runtime of its own, so that it can be ended as a process is.
pub(crate) struct Process {
    runtime: Runtime,
    manager: Sandboxes,
}

/// A step at which the manager comes to a halt, as a process that is killed there does.
pub(crate) struct Halt {
    reached: Arc<Notify>,
    step: Arc<Mutex<Option<&'static str>>>,
}

// === impl Host ===

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Self::at(directory.path());
        host.install();
        Self { _directory: Some(directory), ..host }
    }

    /// A host that has just started, with what there is in a directory.
    pub(crate) fn at(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            boot: uuid::Uuid::new_v4(),
            monitor: Arc::default(),
            budget: Budget { machines: 64, memory_mib: 1 << 20 },
            watch_interval: Duration::from_millis(20),
            template_snapshots: 4,
            _directory: None,
        }
    }

    /// Puts a kernel and a template where they belong.
    pub(crate) fn install(&self) {
        let files = [
            ("kernels", "default-kernel.json"),
            ("kernels", "default-vmlinux.bin"),
            ("kernels", "default-initramfs.cpio"),
            ("rootfs", "default-rootfs.ext4"),
        ];
        for (folder, file) in files {
            std::fs::create_dir_all(self.path(folder)).unwrap();
            std::fs::write(self.path(folder).join(file), "contents").unwrap();
        }
    }

    /// Starts a manager that nothing halts.
    pub(crate) async fn start(&self) -> Sandboxes {
        self.start_with(emergent_firecracker_manager::step::unhindered()).await
    }

    pub(crate) async fn start_with(&self, checkpoint: Checkpoint) -> Sandboxes {
        let mut config = ManagerConfig::new(&self.base);
        (config.budget, config.watch_interval) = (self.budget, self.watch_interval);
        (config.template_snapshots, config.host_boot) = (self.template_snapshots, Some(self.boot));
        let start = async {
            loop {
                let parts = Parts {
                    vmm: Arc::new(Driver(Arc::clone(&self.monitor))),
                    network: Arc::new(NoInterfaces { reason: "there is none in this test".to_owned() }),
                    checkpoint: Arc::clone(&checkpoint),
                };
                match Sandboxes::start(config.clone(), parts).await {
                    // A program that another test is just starting has the lock of one that ended, until it is
                    // executed.
                    Err(StartError::Taken(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    started => return started.unwrap(),
                }
            }
        };
        tokio::time::timeout(DEADLINE, start).await.expect("the directory is not given free")
    }

    /// Starts a manager that can be ended at any time.
    pub(crate) async fn start_process(&self, halt: &Halt) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let manager = self.start_with(halt.checkpoint()).await;
        drop(_entered);
        Process { runtime, manager }
    }

    /// A directory below the base.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.base.join(below)
    }

    /// The directory of a sandbox.
    pub(crate) fn sandbox(&self, id: SandboxId) -> PathBuf {
        self.path("sandboxes").join(id.to_string())
    }

    /// The names in a directory below the base, sorted.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

// === impl Process ===

impl Process {
    /// Has the manager do something.
    pub(crate) async fn call<T: Send + 'static, F: Future<Output = Result<T, SandboxError>> + Send + 'static>(
        &self,
        operation: impl FnOnce(Sandboxes) -> F,
    ) -> Result<T, SandboxError> {
        self.runtime.spawn(operation(self.manager.clone())).await.unwrap()
    }

    /// Ends the manager: all its tasks where they stand, and its lock with them.
    pub(crate) async fn crash(self) {
        let Self { runtime, manager } = self;
        drop(manager);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }
}

// === impl Halt ===

impl Halt {
    pub(crate) fn nowhere() -> Self {
        Self { reached: Arc::default(), step: Arc::default() }
    }

    /// From now on, whoever is at this step goes no further.
    pub(crate) fn at(&self, step: &'static str) {
        *self.step.lock().unwrap() = Some(step);
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let (reached, halted) = (Arc::clone(&self.reached), Arc::clone(&self.step));
        Arc::new(move |step| {
            let (reached, halts) = (Arc::clone(&reached), *halted.lock().unwrap() == Some(step));
            Box::pin(async move {
                if halts {
                    reached.notify_one();
                    std::future::pending::<()>().await;
                }
            })
        })
    }

    /// Runs an operation until the step is reached or the operation has ended; says whether it was reached.
    pub(crate) async fn reached_by<T>(&self, operation: impl Future<Output = Result<T, SandboxError>>) -> bool {
        let raced = async {
            tokio::select! {
                biased;
                () = self.reached.notified() => true,
                ended = operation => {
                    ended.map(drop).unwrap();
                    false
                }
            }
        };
        tokio::time::timeout(DEADLINE, raced).await.expect("neither the step nor the end was reached in time")
    }
}
