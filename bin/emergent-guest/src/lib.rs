//! The daemon inside every workspace.
//!
//! The daemon is PID 1 of the sandbox: it reaps every process, runs commands whose output outlives the caller, works on
//! files with the agent's rights, and serves all of that as HTTP/2 on every channel that is opened to it.
//!
//! - [`args`]: the command line; [`serve`] and [`connect`]: the two things the program does; [`init`]: the first process
//!   of a virtual machine, from its beginning to the machine's end.
//! - [`http`]: requests in, answers out; [`message`]: the reading of the one, and the writing of the other; [`change`]:
//!   the requests that change something.
//! - [`executions`]: commands, their output and their end; [`process`]: spawning, reaping and killing.
//! - [`children`]: long-lived processes that somebody talks to, and tunnels to ports inside.
//! - [`tools`]: read, write, edit, glob, grep and git; [`files`]: raw contents and archives.
//! - [`ledger`]: the calls that change something, and how they ended.
//! - [`configuration`]: what belongs to the workspace rather than to its sandbox.
//! - [`owner`]: whose state directory it is, where a workspace is a copy of another.
//! - `own_files`: reading and writing what the guest keeps where root inside may write, too.
//! - [`resolver`]: name servers, where Docker's cannot be reached.
//! - [`copy`]: a whole tree with all that it has, for snapshots; a thing the program does by itself.
//! - [`machine`]: the parts of being the first process of a virtual machine.
//! - [`account`] and [`credentials`]: the agent's user, and access to the file system as that user.

pub mod account;
pub mod args;
mod authorities;
pub mod change;
pub mod children;
pub mod configuration;
pub mod connect;
pub mod copy;
pub mod credentials;
pub mod executions;
pub mod failure;
pub mod file_locks;
pub mod files;
pub mod guest;
pub mod http;
pub mod init;
pub mod ledger;
pub mod machine;
pub mod message;
mod own_files;
pub mod owner;
pub mod process;
pub mod random;
pub mod resolver;
pub mod serve;
pub mod tools;
pub mod tree_size;
pub mod usage;
