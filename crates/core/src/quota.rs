//! Bounds over all workspaces: the capacity of the installation and its projects, and the host's disk and tasks.

pub(crate) mod capacity;
pub(crate) mod host_guard;
