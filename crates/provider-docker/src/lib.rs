//! The `gvisor` provider: workspaces as containers of the Docker Engine, under gVisor where it is installed.
//!
//! [`DockerProvider`] implements the provider traits, one file for each concern: `lifecycle` makes and ends
//! containers, `inventory` says what there is, `health` says whether the engine works. Below them, `engine` is the
//! bounded way to the API, `image` finds images, `image_pull` gets them from where `registry` lets them be asked for,
//! `volumes` says which directories outlive a container, `guest_volume` brings the guest binary in, and `network` with
//! `firewall` decide what guests reach, by rules of `emergent-packet-filter`. `host` says what the engine's machine has
//! left, and `disk` how much of it the files in a sandbox's `places` take, `seccomp` which calls of its kernel may be
//! made, and `accounts` which files of a container the engine may read; `before_start` checks a container's `layers` for
//! them, and for links where something is mounted. `snapshots` keeps copies of workspaces, whose files `copy` brings
//! from volume to volume.
//!
//! Engine calls have deadlines, and nothing here waits for a container's life or needs the server to have been alive
//! when the container was made: whatever must be known later is in names and labels.

mod accounts;
mod before_start;
mod bridges;
mod channel;
mod copy;
mod create;
mod disk;
mod engine;
mod exit_reason;
mod facts;
mod firewall;
mod guest_binary;
mod guest_volume;
mod health;
mod holder;
mod host;
mod image;
mod image_pull;
mod inventory;
mod labels;
mod layers;
mod lifecycle;
mod network;
mod parts;
mod places;
mod registry;
mod removal;
mod root_probe;
mod seccomp;
mod shared_volumes;
mod snapshots;
mod tidy;
mod volumes;

pub mod config;
pub mod provider;

pub use config::{ConfigError, DockerConfig};
pub use guest_binary::{GuestBinary, GuestBinaryError};
pub use ipnet::IpNet;
pub use provider::DockerProvider;
