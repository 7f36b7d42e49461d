//! The start of a process.
//!
//! `std::process` cannot give a child other groups and a user of its own without copying the parent's page tables
//! (`fork`), which costs most under gVisor. Here the child borrows the parent's memory until it executes its program
//! (`clone` with `CLONE_VM | CLONE_VFORK`, as `posix_spawn` does) and the calling thread waits for that moment.
//!
//! This is safe because the child runs on a stack of its own with all signals blocked, makes only system calls, neither
//! allocates nor unwinds, and all data that it reads was prepared before and outlives it. It changes its ids by raw
//! system calls, since the C library's wrappers would change every thread of the parent. After that change the kernel
//! marks the shared memory undumpable, so that no process of the agent can look into it.

#![expect(unsafe_code, reason = "clone(2) and the child's side of it; see the module's documentation")]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use libc::{c_char, c_int, c_void};

use crate::account::Account;

/// A program to try: the first that exists is run.
#[derive(Debug)]
pub struct Candidate {
    /// The program's path.
    pub path: CString,
    /// The program's `argv[0]`.
    pub argv0: CString,
}

/// A resource limit of a process.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The resource, such as `RLIMIT_NPROC`.
    pub resource: libc::__rlimit_resource_t,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// The description of a child.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The programs to try, in order.
    pub candidates: Vec<Candidate>,
    /// The arguments after the program's name.
    pub arguments: Vec<CString>,
    /// The variables of the environment, each as `KEY=value`.
    pub environment: Vec<CString>,
    /// The directory where the child starts.
    pub workdir: CString,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The account that the child runs as.
    pub account: &'a Account,
    /// A supplementary group that tags the child.
    pub group_tag: Option<u32>,
    /// The child's limits, besides those that it inherits.
    pub limits: Vec<Limit>,
}

/// The reason why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The kernel did not make a process; `EAGAIN` when a limit is reached.
    #[error("no process can be made")]
    Clone(#[source] io::Error),
    /// The child could not enter its directory.
    #[error("the working directory cannot be entered")]
    Workdir(#[source] io::Error),
    /// The child could not take its user or limits.
    #[error("the process cannot be set up")]
    Setup(#[source] io::Error),
    /// No candidate could be run.
    #[error("the program cannot be run")]
    Exec(#[source] io::Error),
}

/// The memory that parent and child share until the child executes its program.
struct Shared {
    /// `(path, argv0)` of every candidate.
    candidates: Vec<(*const c_char, *const c_char)>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    workdir: *const c_char,
    stdio: [c_int; 3],
    groups: Vec<u32>,
    uid: u32,
    gid: u32,
    limits: Vec<Limit>,
    failure: Option<(Step, c_int)>,
}

#[derive(Clone, Copy)]
enum Step {
    Workdir,
    Setup,
    Exec,
}

/// The size of the child's stack: enough for its few frames, in debug builds too.
const STACK_WORDS: usize = 4096;

/// Signals whose handling the guest changes or inherits; programs expect the default.
const RESET: [c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGSEGV,
    libc::SIGBUS,
];

/// Starts the process and returns its id once it runs its program.
///
/// On an error after `clone`, the child has been waited for. The caller must keep the reaper away meanwhile.
///
/// # Errors
/// [`SpawnError`] names the failed step.
pub fn spawn(plan: &Plan<'_>) -> Result<i32, SpawnError> {
    let mut shared = Shared::new(plan);
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_WORDS);
    // SAFETY: one past the end of the allocation, where a stack that grows down begins; u128 gives its alignment.
    let top = unsafe { stack.as_mut_ptr().add(STACK_WORDS) };
    let blocked = Blocked::all();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `child` touches only `shared`, which lives until `clone` returns: with CLONE_VFORK that is after the
    // child has executed its program or ended. The stack lives as long.
    let pid = unsafe { libc::clone(child, top.cast(), flags, ptr::from_mut(&mut shared).cast()) };
    let error = io::Error::last_os_error();
    drop(blocked);
    drop(stack);
    if pid < 0 {
        return Err(SpawnError::Clone(error));
    }
    let Some((step, errno)) = shared.failure else { return Ok(pid) };
    // SAFETY: waits for the child just made, whose status nobody wants.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    let error = io::Error::from_raw_os_error(errno);
    Err(match step {
        Step::Workdir => SpawnError::Workdir(error),
        Step::Setup => SpawnError::Setup(error),
        Step::Exec => SpawnError::Exec(error),
    })
}

extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its own `Shared` and waits, so this is the only reference in use.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    // SAFETY: the child owns its thread of control; see `become_program`.
    let failure = unsafe { become_program(shared) };
    shared.failure = Some(failure);
    127
}

/// Runs the child's side. Returns only when it failed.
///
/// # Safety
/// To be called in a child made with `CLONE_VM | CLONE_VFORK`, with all signals blocked.
unsafe fn become_program(shared: &mut Shared) -> (Step, c_int) {
    // SAFETY: system calls on memory that `spawn` prepared: nul-terminated strings and null-terminated arrays.
    unsafe {
        for signal in RESET {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setsid();
        for (target, source) in (0..).zip(shared.stdio) {
            if libc::dup2(source, target) < 0 {
                return (Step::Setup, errno());
            }
        }
        prefer_as_victim();
        for limit in &shared.limits {
            let values = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            libc::setrlimit(limit.resource, &raw const values);
        }
        // As the engine does it for containers: in a virtual machine nobody else does.
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return (Step::Setup, errno());
        }
        let changed = libc::syscall(libc::SYS_setgroups, shared.groups.len(), shared.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, shared.gid, shared.gid, shared.gid) == 0
            && libc::syscall(libc::SYS_setresuid, shared.uid, shared.uid, shared.uid) == 0;
        if !changed {
            return (Step::Setup, errno());
        }
        if libc::chdir(shared.workdir) != 0 {
            return (Step::Workdir, errno());
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        let mut refused = libc::ENOENT;
        for &(path, argv0) in &shared.candidates {
            // `argv` always has this slot: `Shared::new` puts it there.
            *shared.argv.as_mut_ptr() = argv0;
            libc::execve(path, shared.argv.as_ptr(), shared.envp.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                // A directory of PATH that may not be looked into holds nothing for this user.
                libc::EACCES if libc::access(path, libc::F_OK) != 0 => {}
                other => refused = other,
            }
            if refused != libc::ENOENT && refused != libc::EACCES {
                break;
            }
        }
        (Step::Exec, refused)
    }
}

/// Makes the kernel kill commands before the guest when memory runs out. Best effort.
unsafe fn prefer_as_victim() {
    const FILE: &CStr = c"/proc/self/oom_score_adj";
    const SCORE: &[u8] = b"500";
    // SAFETY: plain system calls on constants.
    unsafe {
        let file = libc::open(FILE.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, SCORE.as_ptr().cast(), SCORE.len());
            libc::close(file);
        }
    }
}

unsafe fn errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

// === impl Limit ===

impl Limit {
    /// A limit of processes of the user.
    pub fn processes(count: u64) -> Self {
        Self { resource: libc::RLIMIT_NPROC, soft: count, hard: count }
    }

    /// A limit of open files.
    pub fn files(soft: u64, hard: Option<u64>) -> Self {
        Self { resource: libc::RLIMIT_NOFILE, soft, hard: hard.unwrap_or(libc::RLIM_INFINITY) }
    }
}

// === impl Shared ===

impl Shared {
    fn new(plan: &Plan<'_>) -> Self {
        let arguments = plan.arguments.iter().map(|argument| argument.as_ptr());
        let variables = plan.environment.iter().map(|variable| variable.as_ptr());
        Self {
            candidates: plan.candidates.iter().map(|each| (each.path.as_ptr(), each.argv0.as_ptr())).collect(),
            argv: [ptr::null()].into_iter().chain(arguments).chain([ptr::null()]).collect(),
            envp: variables.chain([ptr::null()]).collect(),
            workdir: plan.workdir.as_ptr(),
            stdio: plan.stdio.map(|stream| stream.as_raw_fd()),
            groups: plan.account.groups.iter().copied().chain(plan.group_tag).collect(),
            uid: plan.account.uid,
            gid: plan.account.gid,
            limits: plan.limits.clone(),
            failure: None,
        }
    }
}

/// While this lives, this thread receives no signals.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: fills and reads two local sets; `pthread_sigmask` cannot fail with these arguments.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `all` saved.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}
