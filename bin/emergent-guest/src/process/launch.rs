//! The translation of a caller's request into a [`Plan`]: the program, the environment, the directory.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use emergent_guest_proto::{ErrorCode, GuestError, RunAs, execution::Program};
use tokio::sync::oneshot;

use super::{
    group_tags::GroupTags,
    preload::Preload,
    reaper::{Exit, Reaper},
    spawn::{Candidate, Limit, Plan, SpawnError},
};
use crate::{
    account::Accounts,
    failure::{self, invalid},
};

/// The longest command line, in bytes: Linux takes at most 128 KiB for one argument, its NUL included.
const MAX_COMMAND: usize = 128 * 1024 - 1;

/// Starts programs as the workspace's users.
#[derive(Debug)]
pub struct Launcher {
    /// Makes the processes.
    pub reaper: Arc<Reaper>,
    /// The accounts that the processes run as.
    pub accounts: Arc<Accounts>,
    /// The maker of the processes' group tags.
    pub group_tags: GroupTags,
    /// The library that programs need under this kernel.
    pub preload: Option<Preload>,
    /// Limits of every process.
    pub limits: Vec<Limit>,
    /// Further limits of the agent's processes.
    pub agent_limits: Vec<Limit>,
}

/// The description of a program to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program.
    pub program: &'a Program,
    /// The program's directory.
    pub workdir: &'a Path,
    /// Variables that are added to the environment.
    pub variables: &'a BTreeMap<String, String>,
    /// The user that the program runs as.
    pub user: RunAs,
    /// The program's group tag.
    pub group_tag: Option<u32>,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
}

impl Launcher {
    /// Starts the program. Blocks until it runs.
    ///
    /// # Errors
    /// A [`GuestError`] that tells the caller how to mend the request.
    pub fn launch(&self, launch: &Launch<'_>) -> Result<(i32, oneshot::Receiver<Exit>), GuestError> {
        let mut environment = self.accounts.environment(launch.user);
        environment.retain(|(key, _)| key.to_str().is_none_or(|key| !launch.variables.contains_key(key)));
        environment.extend(launch.variables.iter().map(|(key, value)| (key.into(), value.into())));
        if let Some(preload) = &self.preload {
            preload.add_to(&mut environment);
        }
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
        let (candidates, arguments) = match launch.program {
            Program::Shell(command) => (shells(&path.unwrap_or_default()), vec!["-c".to_owned(), command.clone()]),
            Program::Argv(argv) => match argv.split_first() {
                Some((name, rest)) => (named(name, &path.unwrap_or_default()), rest.to_vec()),
                None => return Err(invalid("program", "the program is an empty list; name at least the program")),
            },
        };
        let plan = Plan {
            candidates: candidates.into_iter().map(candidate).collect::<Result<_, _>>()?,
            arguments: arguments.into_iter().map(|argument| c_string("program", argument)).collect::<Result<_, _>>()?,
            environment: environment.into_iter().map(assignment).collect::<Result<_, _>>()?,
            workdir: c_string("workdir", launch.workdir.as_os_str().as_bytes())?,
            stdio: launch.stdio,
            account: self.accounts.get(launch.user),
            group_tag: launch.group_tag,
            limits: match launch.user {
                RunAs::Agent => [self.limits.as_slice(), &self.agent_limits].concat(),
                RunAs::Root => self.limits.clone(),
            },
        };
        self.reaper.spawn(&plan).map_err(|error| explain(launch, &plan, &error))
    }
}

/// Checks those parts of a request that do not depend on the workspace, before anything is done.
///
/// # Errors
/// `invalid_request` that names the field.
pub fn check(program: &Program, variables: &BTreeMap<String, String>) -> Result<(), GuestError> {
    let arguments = match program {
        Program::Shell(command) if command.trim().is_empty() => {
            return Err(invalid("command", "the command is empty"));
        }
        Program::Shell(command) => std::slice::from_ref(command),
        Program::Argv(argv) => argv.as_slice(),
    };
    if arguments.first().is_none_or(String::is_empty) {
        return Err(invalid("program", "the program's name is empty"));
    }
    if arguments.iter().any(|argument| argument.len() > MAX_COMMAND) {
        let message = "the command is longer than 128 KiB; write it to a file first and run that";
        return Err(invalid("command", message));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid("command", "the command contains a NUL byte"));
    }
    check_variables("env", variables)
}

/// Checks variables, which are a field `parent` of the request.
///
/// # Errors
/// `invalid_request` that names the variable.
pub fn check_variables(parent: &str, variables: &BTreeMap<String, String>) -> Result<(), GuestError> {
    for (key, value) in variables {
        let field = format!("{parent}.{key}");
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(invalid(parent, format!("{key:?} cannot be the name of an environment variable")));
        }
        if value.contains('\0') {
            return Err(invalid(&field, "the value contains a NUL byte"));
        }
        if key.len() + value.len() > MAX_COMMAND - 1 {
            return Err(invalid(&field, "the variable is longer than 128 KiB; write it to a file instead"));
        }
    }
    Ok(())
}

/// Returns the candidates for the shell: `bash` if the image has it, else `sh`. Each candidate is `(path, argv[0])`.
fn shells(path: &OsString) -> Vec<(PathBuf, OsString)> {
    let anywhere = |name: &'static str| std::env::split_paths(path).map(move |directory| directory.join(name));
    let bash = [PathBuf::from("/bin/bash")].into_iter().chain(anywhere("bash"));
    let sh = [PathBuf::from("/bin/sh")].into_iter().chain(anywhere("sh"));
    bash.chain(sh).map(|shell| (shell.clone(), shell.into_os_string())).collect()
}

fn named(name: &str, path: &OsString) -> Vec<(PathBuf, OsString)> {
    if name.contains('/') {
        return vec![(name.into(), name.into())];
    }
    std::env::split_paths(path).map(|directory| (directory.join(name), name.into())).collect()
}

fn candidate((path, argv0): (PathBuf, OsString)) -> Result<Candidate, GuestError> {
    Ok(Candidate {
        path: c_string("program", path.as_os_str().as_bytes())?,
        argv0: c_string("program", argv0.as_bytes())?,
    })
}

fn assignment((key, value): (OsString, OsString)) -> Result<CString, GuestError> {
    c_string("env", [key.as_bytes(), b"=", value.as_bytes()].concat())
}

fn c_string(field: &str, bytes: impl Into<Vec<u8>>) -> Result<CString, GuestError> {
    CString::new(bytes).map_err(|_| invalid(field, "a NUL byte cannot be passed to a program"))
}

fn explain(launch: &Launch<'_>, plan: &Plan<'_>, error: &SpawnError) -> GuestError {
    match error {
        // gVisor says the latter, of names that are too long as well.
        SpawnError::Exec(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENAMETOOLONG)) => {
            too_long(plan, error)
        }
        SpawnError::Workdir(error) => failure::at(launch.workdir, "run in", error).with_field("workdir"),
        SpawnError::Clone(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
            limit_reached()
        }
        SpawnError::Setup(error) | SpawnError::Exec(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            limit_reached()
        }
        SpawnError::Exec(error) => cannot_run(launch.program, error),
        SpawnError::Clone(source) | SpawnError::Setup(source) => {
            GuestError::new(ErrorCode::Internal, format!("{error}: {source}"))
        }
    }
}

fn limit_reached() -> GuestError {
    let message = "the workspace has reached its limit on processes or memory; end some and call again";
    GuestError::new(ErrorCode::ResourceLimit, message)
}

fn too_long(plan: &Plan<'_>, error: &std::io::Error) -> GuestError {
    /// The most bytes that Linux accepts, whatever the limit on the stack is.
    const MOST: u64 = 6 << 20;
    /// The bytes that Linux always accepts.
    const LEAST: u64 = 128 << 10;
    let strings = plan.arguments.iter().chain(&plan.environment);
    let size: usize = strings.map(|string| string.as_bytes_with_nul().len() + size_of::<usize>()).sum();
    let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let limit = stack.map_or(MOST, |stack| (stack / 4).clamp(LEAST, MOST));
    if error.raw_os_error() == Some(libc::ENAMETOOLONG) && (size as u64) < limit {
        return GuestError::new(ErrorCode::InvalidRequest, "the program's name is too long").with_field("program");
    }
    let message = format!(
        "command and environment take {size} bytes, and this workspace's kernel takes {limit}; write the larger values to \
         files and pass their names"
    );
    GuestError::new(ErrorCode::ArgumentsTooLong, message).with_field("env")
}

fn cannot_run(program: &Program, error: &std::io::Error) -> GuestError {
    let (code, message) = match (program, error.raw_os_error()) {
        (Program::Shell(_), Some(libc::ENOENT)) => {
            let message = "this image has neither bash nor sh; use an image with a shell, or name a program and its \
                arguments";
            (ErrorCode::MissingProgram, message.to_owned())
        }
        (Program::Argv(argv), Some(libc::ENOENT)) => {
            let name = argv.first().map(String::as_str).unwrap_or_default();
            (ErrorCode::MissingProgram, format!("{name:?} is not a program of this image; check its name and PATH"))
        }
        (_, Some(libc::EACCES)) => {
            (ErrorCode::PermissionDenied, "the program may not be executed; check its permissions".to_owned())
        }
        (_, Some(libc::ENOEXEC)) => {
            let message = "the program is neither a binary of this machine nor a script with a #! line";
            (ErrorCode::InvalidRequest, message.to_owned())
        }
        _ => (ErrorCode::Internal, format!("the program cannot be run: {error}")),
    };
    GuestError::new(code, message).with_field("program")
}
