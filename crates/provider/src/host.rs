//! The resources of the machine under an engine, and how much of them is left.

/// The resources of the machine under an engine, and how much of them is left, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRoom {
    /// Bytes that are left, for unprivileged writers, on the file system where sandboxes keep their files. Where it
    /// runs out of files first: the part of all its bytes that the files left are of all files.
    pub disk_free: u64,
    /// Processes and threads that there are on the machine.
    pub tasks: u64,
    /// The number of processes and threads that the machine may have.
    pub most_tasks: u64,
    /// Processor cores of the machine, if the engine tells.
    pub cores: Option<u32>,
}

// === impl HostRoom ===

impl HostRoom {
    /// Returns the number of tasks that may be in use before sandboxes have to give some up: a quarter stays with the
    /// machine itself.
    pub fn task_budget(&self) -> u64 {
        self.most_tasks - self.most_tasks / 4
    }
}
