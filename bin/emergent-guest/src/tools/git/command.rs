//! The runs of git: as the agent, without prompts, with limits of time and output.

mod refusal;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Seek as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use emergent_guest_proto::{ErrorCode, GuestError, RunAs, execution::Program};
use rustix::{fs::MemfdFlags, pipe::PipeFlags};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::oneshot, time::Instant};

use super::redact::redact;
use crate::{
    credentials,
    guest::Guest,
    process::{launch::Launch, reaper::Exit, tree::Family},
};

const TIMEOUT: Duration = Duration::from_secs(60);
const NETWORK_TIMEOUT: Duration = Duration::from_secs(600);

/// The time that git may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// The most bytes of an answer that is parsed, and of git's messages.
const OUTPUT_LIMIT: usize = 16 << 20;
const MESSAGE_LIMIT: usize = 16 << 10;

/// git in one repository.
#[derive(Debug)]
pub(super) struct Git<'a> {
    guest: &'a Arc<Guest>,
    directory: &'a Path,
    variables: BTreeMap<String, String>,
}

/// The parameters of a run of git.
struct Order<'a> {
    arguments: &'a [&'a str],
    /// The bytes of the standard input.
    input: &'a [u8],
    /// The most bytes of standard output that are read.
    limit: usize,
    timeout: Duration,
}

/// The result of a run of git.
#[derive(Debug)]
pub(super) struct Output {
    exit: Exit,
    /// Standard output, at most as many bytes as were requested.
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Whether there was more of `stdout`, and git was ended.
    pub(super) truncated: bool,
}

impl<'a> Git<'a> {
    /// Makes a runner of git in `directory`.
    pub(super) fn new(guest: &'a Arc<Guest>, directory: &'a Path) -> Self {
        let environment = guest.accounts.environment(RunAs::Agent);
        let mut variables = BTreeMap::new();
        let mut set = |key: &str, value: &str| variables.insert(key.to_owned(), value.to_owned());
        set("LC_ALL", "C");
        set("GIT_TERMINAL_PROMPT", "0");
        set("GIT_OPTIONAL_LOCKS", "0");
        set("GIT_LITERAL_PATHSPECS", "1");
        set("GIT_PAGER", "cat");
        set("GIT_EDITOR", "true");
        // The repository may be root's. Added after what the workspace's environment configures.
        let count = lookup(&environment, "GIT_CONFIG_COUNT").and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
        set(&format!("GIT_CONFIG_KEY_{count}"), "safe.directory");
        set(&format!("GIT_CONFIG_VALUE_{count}"), "*");
        set("GIT_CONFIG_COUNT", &count.saturating_add(1).to_string());
        Self { guest, directory, variables }
    }

    /// Returns the same runner in another directory.
    pub(super) fn in_directory<'b>(&'b self, directory: &'b Path) -> Git<'b> {
        Git { guest: self.guest, directory, variables: self.variables.clone() }
    }

    /// Returns the directory that git runs in.
    pub(super) fn directory(&self) -> &Path {
        self.directory
    }

    /// Whether git's environment has this variable.
    pub(super) fn has_variable(&self, key: &str) -> bool {
        self.variables.contains_key(key) || lookup(&self.guest.accounts.environment(RunAs::Agent), key).is_some()
    }

    /// Sets a variable of git's environment.
    pub(super) fn set_variable(&mut self, key: &str, value: &str) {
        self.variables.insert(key.to_owned(), value.to_owned());
    }

    /// Runs git on files of the workspace.
    ///
    /// # Errors
    /// When git cannot be run or takes too long; git's own refusals are in the output.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Output, GuestError> {
        self.run_with(arguments, &[]).await
    }

    /// Runs git with a standard input.
    ///
    /// # Errors
    /// The errors of [`Git::run`].
    pub(super) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Result<Output, GuestError> {
        self.start(Order { arguments, input, limit: OUTPUT_LIMIT, timeout: TIMEOUT }).await
    }

    /// Runs git and reads at most `limit` bytes of its output.
    ///
    /// # Errors
    /// The errors of [`Git::run`].
    pub(super) async fn run_for(&self, arguments: &[&str], limit: usize) -> Result<Output, GuestError> {
        self.start(Order { arguments, input: &[], limit, timeout: TIMEOUT }).await
    }

    /// Runs git with a remote, which may take longer.
    ///
    /// # Errors
    /// The errors of [`Git::run`].
    pub(super) async fn run_on_network(&self, arguments: &[&str]) -> Result<Output, GuestError> {
        self.start(Order { arguments, input: &[], limit: OUTPUT_LIMIT, timeout: NETWORK_TIMEOUT }).await
    }

    async fn start(&self, order: Order<'_>) -> Result<Output, GuestError> {
        let Order { arguments, input, limit, timeout } = order;
        let cannot = |error: io::Error| GuestError::new(ErrorCode::Internal, format!("git cannot be run: {error}"));
        let argv = [&["git"], arguments].concat().into_iter().map(str::to_owned).collect();
        let (stdout, stdout_end) = pipe_pair().map_err(cannot)?;
        let (stderr, stderr_end) = pipe_pair().map_err(cannot)?;
        let group_tag = self.guest.executions.launcher().group_tags.next();
        let input = input_file(input).map_err(cannot)?;
        let (guest, directory, variables) = (Arc::clone(self.guest), self.directory.to_owned(), self.variables.clone());
        let (pid, exit) = credentials::blocking(move || {
            guest
                .executions
                .launcher()
                .launch(&Launch {
                    program: &Program::Argv(argv),
                    workdir: &directory,
                    variables: &variables,
                    user: RunAs::Agent,
                    group_tag,
                    stdio: [input.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()],
                })
                .map_err(name_field)
        })
        .await?;
        let family = Family { leader: Some(pid), group_tag, variable: None };
        let (stdout, stderr) = (Gathered::new(stdout, limit), Gathered::new(stderr, MESSAGE_LIMIT));
        attend(&family, stdout, stderr, exit, Instant::now() + timeout).await
    }
}

/// Reads both streams until git ends; ends git when it has written too much or takes too long.
async fn attend(
    family: &Family,
    mut stdout: Gathered,
    mut stderr: Gathered,
    mut exit: oneshot::Receiver<Exit>,
    deadline: Instant,
) -> Result<Output, GuestError> {
    let unknown = |_| GuestError::new(ErrorCode::Internal, "how git ended is not known");
    loop {
        tokio::select! {
            () = stdout.fill(), if stdout.wants_more() => {
                if stdout.is_full() {
                    family.terminate(GRACE).await;
                    let exit = exit.await.map_err(unknown)?;
                    let truncated = true;
                    return Ok(Output { exit, stdout: stdout.finish(), stderr: stderr.finish(), truncated });
                }
            }
            // Messages beyond the limit are read, so that git is not held up, and forgotten.
            () = stderr.fill(), if stderr.open => {}
            ended = &mut exit => {
                let exit = ended.map_err(unknown)?;
                // What it wrote before it ended is in the pipes; a descendant may keep them open, so never wait.
                stdout.drain();
                stderr.drain();
                let truncated = stdout.is_full();
                return Ok(Output { exit, stdout: stdout.finish(), stderr: stderr.finish(), truncated });
            }
            () = tokio::time::sleep_until(deadline) => {
                family.terminate(GRACE).await;
                return Err(GuestError::new(ErrorCode::GitFailed, "git took too long and was ended"));
            }
        }
    }
}

/// Makes a file with the standard input: a pipe would have to be filled while git runs.
fn input_file(input: &[u8]) -> io::Result<File> {
    if input.is_empty() {
        return File::open("/dev/null");
    }
    let mut file = File::from(rustix::fs::memfd_create("git-input", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

fn pipe_pair() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}

fn lookup(environment: &[(OsString, OsString)], key: &str) -> Option<String> {
    environment.iter().find(|(known, _)| known == key).and_then(|(_, value)| value.clone().into_string().ok())
}

/// Renames the error's field: the caller of the git tool knows neither `workdir` nor `program`.
fn name_field(mut error: GuestError) -> GuestError {
    match error.field.as_deref() {
        Some("workdir") => error.with_field("path"),
        _ if error.code == ErrorCode::MissingProgram => {
            GuestError::new(ErrorCode::MissingProgram, "this image has no git; use an image that has")
        }
        _ => {
            error.field = None;
            error
        }
    }
}

/// The bytes that were read from a stream.
struct Gathered {
    pipe: pipe::Receiver,
    bytes: Vec<u8>,
    limit: usize,
    open: bool,
}

// === impl Output ===

impl Output {
    /// Whether git succeeded.
    pub(super) fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Returns standard output as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns both streams, for people.
    pub(super) fn report(&self) -> String {
        let shown = &self.stdout[..self.stdout.len().min(MESSAGE_LIMIT)];
        let parts = [shown, &self.stderr].map(|part| String::from_utf8_lossy(part).trim().to_owned());
        redact(parts.join("\n").trim())
    }

    /// Returns standard output as a path.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(self.stdout.strip_suffix(b"\n").unwrap_or(&self.stdout))).to_owned()
    }
}

// === impl Gathered ===

impl Gathered {
    fn new(pipe: pipe::Receiver, limit: usize) -> Self {
        Self { pipe, bytes: Vec::new(), limit, open: true }
    }

    fn wants_more(&self) -> bool {
        self.open && !self.is_full()
    }

    /// Whether the limit is exceeded: one byte beyond it shows that there are more.
    fn is_full(&self) -> bool {
        self.bytes.len() > self.limit
    }

    /// Reads once; keeps at most one byte more than the limit.
    async fn fill(&mut self) {
        self.bytes.reserve(64 * 1024);
        self.open = matches!(self.pipe.read_buf(&mut self.bytes).await, Ok(1..));
        self.bytes.truncate(self.limit + 1);
    }

    /// Reads all available bytes without waiting. The runtime may not know of them yet, so the kernel is asked.
    fn drain(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while self.wants_more() {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(count @ 1..) => self.bytes.extend_from_slice(&buffer[..count]),
                Ok(0) | Err(_) => self.open = false,
            }
        }
        self.bytes.truncate(self.limit + 1);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.limit);
        self.bytes
    }
}
