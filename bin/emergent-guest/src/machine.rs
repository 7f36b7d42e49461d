//! Being PID 1 of a virtual machine, rather than of a container: what an engine would have done before is done here.
//!
//! - [`init`]: from the kernel's first process to the workspace's daemon, and to the machine's end.
//! - [`identity`]: what tells the machine from its copies.
//! - [`settings`]: what the host says on the kernel's command line.
//! - [`modules`], [`mounts`], [`grow`] and [`network`]: parts of the kernel, file systems and their sizes, addresses.
//! - [`ports`] and [`vsock`]: channels from the host.
//! - [`restored`]: what has to change when the machine comes back from a snapshot.

pub mod grow;
pub mod identity;
pub mod init;
pub mod modules;
pub mod mounts;
pub mod network;
pub mod ports;
pub mod restored;
pub mod settings;
pub mod vsock;
