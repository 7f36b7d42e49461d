//! The guest as PID 1 of a virtual machine, rather than of a container: it does the work of a container's engine.
//!
//! - [`identity`]: the properties that tell the machine from its copies.
//! - [`settings`]: the host's settings on the kernel's command line.
//! - [`modules`], [`mounts`], [`grow`] and [`network`]: parts of the kernel, file systems and their sizes, addresses.
//! - [`restored`]: the changes after the machine was restored from a snapshot.

pub mod grow;
pub mod identity;
pub mod modules;
pub mod mounts;
pub mod network;
pub mod restored;
pub mod settings;
