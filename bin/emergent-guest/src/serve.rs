//! `emergent-guest serve`: sets the workspace up and serves channels until it is told to end.

mod ports;
mod vsock;

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    net::{UnixListener, unix::pipe},
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

use crate::{
    account::Accounts,
    args::Settings,
    configuration::KeptConfiguration,
    executions::Executions,
    file_locks::FileLocks,
    guest::Guest,
    http,
    machine::restored::Machine,
    own_files, owner,
    process::{group_tags::GroupTags, launch::Launcher, preload::Preload, reaper::Reaper, spawn::Limit},
    random::random_name,
    resolver,
    tools::git::identity,
    tree_size::Tree,
};

/// Threads for blocking jobs. Few, as they count against the workspace's limit on processes.
const BLOCKING_THREADS: usize = 24;

/// The time that the last answers may take when the guest ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The reason for which the guest cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The guest needs root's rights to make users' processes.
    #[error("the guest must run as root inside the workspace")]
    NotRoot,
    /// A part of the set-up failed.
    #[error("the guest cannot {step}")]
    Setup {
        /// The part that failed, in words that complete "the guest cannot …".
        step: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Serves until SIGTERM or a request to shut down.
///
/// # Errors
/// [`ServeError`] when the workspace cannot be set up.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let setup = |step| move |source| ServeError::Setup { step, source };
    let limits = prepare_process();
    // Those of the engine's root: file tools act as other users, and may have none of them.
    rustix::thread::set_thread_groups(&[]).map_err(io::Error::from).map_err(setup("leave its groups"))?;
    // The engine takes that of root in `/etc/passwd`, where it is not told a user.
    let root = rustix::fs::Gid::ROOT;
    let group = rustix::thread::set_thread_res_gid(Some(root), Some(root), Some(root));
    group.map_err(io::Error::from).map_err(setup("take root's group"))?;
    prepare_directories(&settings).map_err(setup("prepare its directories"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        // For ever: at the limit on processes no new thread can be made.
        .thread_keep_alive(Duration::from_secs(u32::MAX.into()))
        .enable_all()
        .build()
        .map_err(setup("start its threads"))?;
    let served = runtime.block_on(serve(settings, limits));
    runtime.shutdown_background();
    served
}

async fn serve(settings: Settings, limits: Vec<Limit>) -> Result<(), ServeError> {
    let setup = |step| move |source| ServeError::Setup { step, source };
    warm_up().await;
    let reaper = Reaper::start().map_err(setup("start its reaper"))?;
    let configuration = KeptConfiguration::load(&settings.state_dir).map_err(setup("take up what it was handed"))?;
    let configuration = Arc::new(configuration);
    let git_config = identity::provide(&settings.state_dir).map_err(setup("put git's configuration into its state"))?;
    let accounts = Arc::new(Accounts::of_image(&settings.workspace, Arc::clone(&configuration), git_config));
    let boot_id = random_name().map_err(setup("draw random numbers"))?;
    let seed = boot_id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    let preload = Preload::where_needed(&settings.state_dir).map_err(setup("put a library into its state"))?;
    let launcher = Launcher {
        reaper,
        accounts: Arc::clone(&accounts),
        group_tags: GroupTags::of_namespace(seed),
        preload,
        limits,
        agent_limits: settings.nproc.map(Limit::processes).into_iter().collect(),
    };
    let executions =
        Executions::open(&settings.state_dir, launcher, settings.output_budget).map_err(setup("take up its state"))?;
    let listener = listen(&settings.socket).map_err(setup("listen on its socket"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(setup("take signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup("take signals"))?;
    let guest = Arc::new(Guest {
        boot_id: boot_id.into(),
        machine: settings.machine.as_ref().map(Machine::new),
        tree: Tree::default(),
        volumes: Tree::default(),
        started: Instant::now(),
        shutdown: Notify::new(),
        closing: watch::Sender::new(()),
        settings,
        configuration,
        accounts,
        executions,
        children: Arc::default(),
        file_locks: Arc::new(FileLocks::default()),
        ledger: Arc::default(),
    });
    if guest.settings.stdio {
        serve_stdio(&guest);
    }
    tokio::spawn(Arc::clone(&guest.executions).keep_budget());
    let name_servers = guest.settings.name_servers.clone();
    tokio::task::spawn_blocking(move || resolver::mend(&name_servers));
    tokio::spawn(accept(listener, Arc::clone(&guest)));
    if guest.machine.is_some() {
        ports::serve_all(&guest);
        tokio::spawn(vsock::serve(Arc::clone(&guest)));
    }
    tokio::select! {
        () = guest.shutdown.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::join!(guest.executions.shut_down(), guest.children.shut_down());
    guest.closing.send_replace(());
    // A caller that does not read its answer is not waited for any longer.
    let _ = tokio::time::timeout(LAST_ANSWERS, guest.closing.closed()).await;
    let executions = Arc::clone(&guest.executions);
    let _ = tokio::task::spawn_blocking(move || executions.flush()).await;
    Ok(())
}

async fn accept(listener: UnixListener, guest: Arc<Guest>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(http::serve(Arc::clone(&guest), stream))),
            Err(error) => {
                tracing::warn!(%error, "a channel could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves a channel on standard input and output. Its end, or a stream that cannot carry one, does not end the guest.
fn serve_stdio(guest: &Arc<Guest>) {
    match stdio() {
        Ok((input, output)) => drop(tokio::spawn(http::serve(Arc::clone(guest), tokio::io::join(input, output)))),
        Err(error) => tracing::warn!(%error, "no channel on standard input and output"),
    }
}

/// Takes standard input and output away from the rest of the program, so that nothing else is read or written there.
fn stdio() -> io::Result<(pipe::Receiver, pipe::Sender)> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(io::Error::other("standard input and output are a terminal"));
    }
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::io::ioctl_fionbio(&input, true)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    // Unchecked, as an engine may use sockets for pipes; both can be polled.
    Ok((pipe::Receiver::from_owned_fd_unchecked(input)?, pipe::Sender::from_owned_fd_unchecked(output)?))
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Bound under another name until its permissions are right: who may connect to it is root.
    let new = socket.with_extension("new");
    for former in [socket, &new] {
        own_files::clear(former)?;
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, socket)?;
    Ok(listener)
}

/// Lets everybody write in `/tmp`: an image without one has got it from whoever mounted something there.
fn open_tmp(tmp: &Path) -> io::Result<()> {
    match fs::symlink_metadata(tmp) {
        Ok(found) if found.is_dir() && found.uid() == 0 && found.mode() & 0o7777 == 0o755 => {
            fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn prepare_directories(settings: &Settings) -> io::Result<()> {
    open_tmp(Path::new("/tmp"))?;
    own_files::directory(&settings.state_dir, 0o755)?;
    if let Some(workspace) = &settings.workspace_id {
        owner::take_over(&settings.state_dir, workspace)?;
    }
    own_files::directory(&settings.state_dir.join("output"), 0o755)?;
    for directory in settings.owned.iter().chain([&settings.workspace]) {
        fs::create_dir_all(directory)?;
        if fs::metadata(directory)?.uid() == 0 {
            let agent = Some(emergent_guest_proto::AGENT_UID);
            std::os::unix::fs::chown(directory, agent, agent)?;
        }
    }
    Ok(())
}

/// Prepares the process as a whole. Best effort: a sandbox that refuses some of it still works. Returns the limits
/// that commands get instead of the guest's own.
fn prepare_process() -> Vec<Limit> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Orphans come to the guest also where it is not PID 1.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // The guest needs many files; some programs cannot cope with a high limit, so commands keep the old one.
    let before = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    match (raised, before.current, before.maximum) {
        (Ok(()), Some(soft), hard) => vec![Limit::files(soft, hard)],
        _ => Vec::new(),
    }
}

/// Makes the blocking threads now.
async fn warm_up() {
    const EARLY: usize = 4;
    let barrier = Arc::new(std::sync::Barrier::new(EARLY));
    let jobs: Vec<_> = (0..EARLY)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            tokio::task::spawn_blocking(move || barrier.wait())
        })
        .collect();
    for job in jobs {
        let _ = job.await;
    }
}
