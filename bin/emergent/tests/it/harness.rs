//! Runs the program, with nothing of the caller's environment.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

/// The output of the program, and its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with an environment of its own.
pub(crate) fn emergent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emergent"));
    command.args(arguments).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Compares a text with a file of `snapshots/`; with `UPDATE_SNAPSHOTS` set, writes the file.
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots").join(name);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is stale; write it anew with UPDATE_SNAPSHOTS=1");
}

/// A server without workspaces.
pub(crate) struct Server {
    child: Child,
    directory: TempDir,
    url: String,
    log: mpsc::Receiver<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start_in(directory: TempDir) -> Self {
        Self::start_with(directory, &[])
    }

    /// One with more flags.
    pub(crate) fn start_with(directory: TempDir, flags: &[&str]) -> Self {
        Self::start_set(directory, flags, &[])
    }

    /// One with more flags, and settings in its environment.
    pub(crate) fn start_set(directory: TempDir, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = emergent(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(directory.path()).args(flags).envs(settings.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut server = Self { child, directory, url: String::new(), log };
        let line = server.wait_for("listening on ");
        server.url = line.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        server
    }

    /// The first line of the log, from here on, that has this text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let line = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Returns the address that the server listens on, such as `127.0.0.1:7070`.
    pub(crate) fn address(&self) -> &str {
        self.url.split("://").nth(1).unwrap()
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.directory.path().join("bootstrap-token")
    }

    /// A client command, with the server's first token.
    pub(crate) fn client(&self, arguments: &[&str]) -> Ended {
        run(&mut self.client_command(arguments))
    }

    /// A client command that is not run yet.
    pub(crate) fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = emergent(arguments);
        command.env("EMERGENT_SERVER", &self.url).env("EMERGENT_DATA_DIR", self.directory.path());
        command
    }

    /// Ends it with SIGTERM; what it printed since it was ready, and its data.
    pub(crate) fn stop(mut self) -> (Vec<String>, TempDir) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::yield_now();
        };
        assert!(status.success(), "{status}");
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        (self.log.iter().collect(), directory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was stopped is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
