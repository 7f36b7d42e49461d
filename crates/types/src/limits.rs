//! The limits of a sandbox.

/// The resources that a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResourceLimits {
    /// CPU cores; 0.5 is half a core.
    pub cpu: f64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk, in bytes; enforced where the engine can, else watched.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}
