//! The soak: agents at random work on real servers while everything beneath them is broken on purpose, and every
//! answer that they get is compared with a model of the possible answers.
//!
//! ```text
//!  soak                     outside: saves the image, makes namespaces, removes everything at the end    lab
//!   └ unshare ─ soak init   PID 1 inside: mounts, reaps                                                  lab::inside
//!      └ soak run           the run itself                                                               run
//!         ├ dockerd         an engine of its own, on a disk of its own                                   dockerd
//!         ├ PostgreSQL      a database of its own for the second server                                  database
//!         ├ emergent × 2    the servers under test: one on runc, one on gVisor, on one engine            testbed
//!         ├ workers         agents; each owns its workspaces, so it knows what an answer must be         worker
//!         └ injector        what strikes everyone: engine, servers, their channels, disk, rows           injector
//! ```
//!
//! A worker's plan follows from the seed alone; the time of a fault does not. That is why each answer is judged by
//! the faults that were at work while it was awaited ([`fault_log`]) and by its workspace's possible phases ([`phase`]).

pub mod agreement;
pub mod answer;
pub mod connections;
pub mod database;
pub mod dockerd;
pub mod fault;
pub mod fault_log;
pub mod files;
pub mod final_check;
pub mod footprint;
pub mod injector;
pub mod lab;
pub mod leak;
pub mod phase;
pub mod plan;
pub mod possible;
pub mod programs;
pub mod report;
pub mod run;
pub mod run_folder;
pub mod settings;
pub mod snapshot;
pub mod testbed;
pub mod worker;
pub mod workspace;
