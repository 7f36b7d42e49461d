//! MicroVMs: what drives a virtual machine monitor, and what its machines are made of.
//!
//! - [`vmm`]: the seam. A [`Vmm`] boots, freezes, saves, restores and ends machines.
//! - [`machine`]: what a machine is made of.
//! - [`error`]: why an operation failed, one type for each.
//! - [`firecracker`] and [`qemu`]: the drivers.
//! - [`kernels`]: taking kernels in.
//! - [`images`] and [`disks`]: root file systems, and what machines write on.
//! - [`durable`] and [`seal`]: what outlives a power cut, and how damage is known.
//! - [`layout`]: where kernels, images, machines and snapshots are kept.
//!
//! Everything about a machine that runs is in its directory, and no process of ours has to live for it to run: another
//! one goes on with it. Who may have a machine, what it is called and who pays for it is decided above.

mod identity;
mod manifest;
mod ports;
mod process;
mod vsock;

pub mod disks;
pub mod durable;
pub mod error;
pub mod firecracker;
pub mod images;
pub mod kernels;
pub mod layout;
pub mod machine;
pub mod monitor;
pub mod qemu;
pub mod seal;
pub mod vmm;

pub use error::{BootError, RestoreError, SaveError, VmmError};
pub use firecracker::{Firecracker, FirecrackerSettings, JailChoice};
pub use layout::Layout;
pub use machine::{Disk, DiskFormat, Kernel, MacAddress, MachineId, MachineSpec, RateLimit, TapInterface};
pub use monitor::{GoneReason, VmmKind};
pub use qemu::{Qemu, QemuChannels, QemuSettings};
pub use seal::Seal;
pub use vmm::{Acceleration, MachineState, Probe, Vmm};

/// The reason why a driver without a kernel cannot tell whether machines boot.
pub(crate) const NO_KERNEL: &str = "there is no kernel to boot; import one with `emergent kernel import`";
