//! One PostgreSQL cluster, from its start to its end.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::{fs as unix_fs, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;

/// The directory in which Debian and Ubuntu put PostgreSQL's programs, by version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user of PostgreSQL, which refuses to run as root; nobody else is this user.
const NOBODY: u32 = 65534;
/// The keeper: says `ready`; starts and stops PostgreSQL when told to; clears up when its standard input ends.
const KEEPER: &str = r#"
export PATH="$1:$PATH" PGDATA="$2/data"
server() { pg_ctl "$1" --log="$2/log" --mode="${3:-fast}" --wait --silent >>"$2/log" 2>&1 </dev/null; }
initdb --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$2/log" 2>&1 &&
    cat >>"$PGDATA/postgresql.conf" <<END && server start "$2" && echo ready || { cat "$2/log"; exit 1; }
listen_addresses = ''
unix_socket_directories = '$2'
max_connections = 400
shared_buffers = 64MB
fsync = off
full_page_writes = off
synchronous_commit = off
END
while read -r command; do
    server "$command" "$2"
    echo "$command"
done
server stop "$2" immediate
rm -rf "$2"
"#;

/// A running cluster. Dropping it ends the cluster.
pub struct Cluster {
    directory: PathBuf,
    /// The shell that keeps the cluster, and waits for the end of its standard input.
    keeper: Child,
    said: Mutex<Lines<BufReader<ChildStdout>>>,
}

// === impl Cluster ===

impl Cluster {
    /// Makes a cluster in a directory of its own, and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start: the message says what to do.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_in(&env::temp_dir())
    }

    /// The same, with its directory in this one, which everybody must be able to pass through.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_in(parent: &Path) -> anyhow::Result<Self> {
        let programs = programs()?;
        let directory = tempfile::Builder::new().prefix("emergent-pg-").tempdir_in(parent)?.keep();
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(programs).arg(&directory).current_dir(&directory);
        if fs::metadata("/proc/self").is_ok_and(|this| std::os::unix::fs::MetadataExt::uid(&this) == 0) {
            unix_fs::chown(&directory, Some(NOBODY), Some(NOBODY))?;
            keeper.uid(NOBODY).gid(NOBODY);
        }
        // A group of its own: Ctrl-C at a terminal must reach the tests before it reaches their database.
        let mut keeper = keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = keeper.stdout.take().context("the keeper's output is a pipe")?;
        let mut lines = BufReader::new(said).lines();
        if lines.next().transpose()?.as_deref() != Some("ready") {
            let log = lines.collect::<Result<Vec<_>, _>>()?.join("\n");
            bail!("PostgreSQL did not start in {}:\n{log}", directory.display());
        }
        Ok(Self { directory, keeper, said: Mutex::new(lines) })
    }

    /// Ends the cluster, with every connection; its files stay.
    ///
    /// # Errors
    /// When the cluster's keeper is gone.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.command("stop")
    }

    /// Starts the cluster again.
    ///
    /// # Errors
    /// When the cluster's keeper is gone.
    pub fn start_again(&self) -> anyhow::Result<()> {
        self.command("start")
    }

    /// The process ids of the cluster's keeper and of PostgreSQL itself, whose other processes are below it.
    ///
    /// # Errors
    /// When the cluster does not run.
    pub fn pids(&self) -> anyhow::Result<[u32; 2]> {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid")).context("PostgreSQL does not run")?;
        let server = file.lines().next().and_then(|line| line.trim().parse().ok());
        Ok([self.keeper.id(), server.context("no process id in postmaster.pid")?])
    }

    fn command(&self, command: &str) -> anyhow::Result<()> {
        let mut said = self.said.lock();
        writeln!(self.keeper.stdin.as_ref().context("its keeper was let go")?, "{command}")?;
        said.next().context("its keeper is gone")??;
        Ok(())
    }

    /// The address of one of the cluster's databases.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.directory.display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Whether it could be waited for or not, there is nothing more to do.
        self.keeper.wait().ok();
    }
}

/// The newest version's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| number(path));
    let programs = newest.map(|version| version.join("bin")).filter(|programs| programs.join("initdb").is_file());
    programs.with_context(|| {
        format!("PostgreSQL is not in {VERSIONS}; install it with `scripts/install-packages.sh postgresql`")
    })
}
