//! The messages of the server and the guest to each other.
//!
//! The guest serves HTTP/2 on every channel that is opened to it: its own stdio, its Unix socket behind `emergent-guest
//! connect`, and in a virtual machine vsock and the [`port`]s of a serial bus. Requests and answers are JSON of the
//! types in this crate, except raw file contents and the [`frame`]s of an execution's output. The tool types are also
//! the public API's tool types: there is one vocabulary for a tool, from the agent down to the process.
//!
//! The protocol is append-only. Fields are added with defaults and never change meaning; [`GENERATION`] grows when a
//! feature is added, and each side gates a feature on the older of the two.

pub mod call;
pub mod child;
pub mod error;
pub mod execution;
pub mod files;
pub mod frame;
pub mod machine;
pub mod path;
pub mod port;
pub mod routes;
pub mod session;
pub mod sha256;
pub mod tools;
pub mod whole;

pub use call::{CallId, CallOutcome};
pub use child::{ChildExit, ChildId, ChildStatus};
pub use error::{ErrorCode, GuestError};
pub use execution::{Execution, ExecutionId, ExecutionState, InvalidExecutionId, Outcome, RunAs, Stream};
pub use path::GuestPath;
pub use routes::Route;
pub use session::{Configuration, Hello, LastEnd, Usage, WorkspaceDefaults};
pub use sha256::Sha256Hex;

/// The protocol generation that this build speaks. A peer may speak an older one.
///
/// | generation | adds |
/// | --- | --- |
/// | 2 | the hand-over |
/// | 3 | children and tunnels; in a machine, [`Route::Restored`] |
/// | 4 | hashes of contents that a caller expects |
/// | 5 | [`Route::LastEnd`]; [`call`]s whose outcome can be asked for |
pub const GENERATION: u32 = 5;

/// Since this generation a guest takes [`Route::LastEnd`].
pub const LAST_END_SINCE: u32 = 5;

/// Since this generation a call that changes something can be sent again under its id. An older guest would do it
/// twice.
pub const CALLS_SINCE: u32 = 5;

/// Since this generation an upload may say which contents it replaces. An older guest would replace any.
pub const EXPECTED_HASH_SINCE: u32 = 4;

/// Since this generation a guest that is PID 1 of a machine takes [`Route::Restored`].
pub const RESTORED_SINCE: u32 = 3;

/// The directory in a container on which the shared read-only volume with the guest binary is mounted.
pub const GUEST_MOUNT: &str = "/.emergent";

/// The guest binary inside the container.
pub const GUEST_BINARY: &str = "/.emergent/emergent-guest";

/// The environment that the image of a machine's root file system gives to commands: JSON, a list of names and values.
pub const IMAGE_ENVIRONMENT: &str = "/.emergent/environment.json";

/// The directory of the guest's socket and of the output of executions: outside `/workspace`, on the root file system.
pub const STATE_DIR: &str = "/var/lib/emergent";

/// The library in [`STATE_DIR`] that programs get where the kernel refuses a flag of statx(2); nowhere else is it made.
pub const PRELOAD_FILE: &str = "preload.so";

/// The record of executions in [`STATE_DIR`]. The guest makes it at its start, after the library.
pub const EXECUTIONS_FILE: &str = "executions.jsonl";

/// The part of [`STATE_DIR`] with what was handed over, values of the environment among it: root's alone, and never
/// part of an image that is made of the root file system. In a container a volume is mounted there.
pub const PRIVATE_DIR: &str = "/var/lib/emergent/private";

/// The Unix socket that `emergent-guest connect` joins its stdio to.
pub const SOCKET_PATH: &str = "/var/lib/emergent/guest.sock";

/// The directory that outlives everything but destruction.
pub const WORKSPACE_DIR: &str = "/workspace";

/// The user and group that commands and file tools run as unless the call says root.
pub const AGENT_UID: u32 = 1000;

/// Bytes of one output stream that a tool answer carries; more is cut from the middle and kept in a file.
pub const OUTPUT_LIMIT: usize = 50 * 1024;

/// The time that a command gets when the call names no `timeout_ms`, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 120_000;

/// The longest `timeout_ms` that is taken: a day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// The time between SIGTERM and SIGKILL for a process tree, in milliseconds.
pub const KILL_GRACE_MS: u64 = 5_000;
