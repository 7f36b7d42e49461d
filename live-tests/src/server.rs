//! A server process: the program, started as a user would start it.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Api, Engine, Machines, Runtime, api::WORKSPACES};

/// The variable with the address at which the other servers on its database reach a server.
const ADVERTISED: &str = "EMERGENT_ADVERTISE_URL";

/// The options of a server's start.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The runtime of the server's workspaces.
    pub runtime: Runtime,
    /// Variables beyond those that every case needs.
    pub environment: Vec<(String, String)>,
    /// A token that the server knows already, because another server on its database has made the first.
    pub token: Option<String>,
}

impl ServerOptions {
    /// A server whose workspaces run on `runtime`.
    pub fn on(runtime: Runtime) -> Self {
        Self { runtime, environment: Vec::new(), token: None }
    }

    /// A server on a database that is another server's, too, reached by the others if `advertised`.
    #[must_use]
    pub fn beside(other: &Server, advertised: bool) -> Self {
        let mut options = other.options.clone();
        options.environment.retain(|(name, _)| name != ADVERTISED);
        options.token = Some(other.api.token().to_owned());
        if advertised { options.advertised() } else { options }
    }

    /// The same, reached by the other servers on its database.
    #[must_use]
    pub fn advertised(self) -> Self {
        self.with(ADVERTISED, "")
    }

    /// The same with a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

impl ServerOptions {
    /// Puts the rows into a PostgreSQL database where the suite is run with `LIVE_POSTGRES=1`.
    async fn use_postgres_if_asked_for(&mut self) -> anyhow::Result<()> {
        let asked_for = std::env::var_os("LIVE_POSTGRES").is_some_and(|value| value == "1");
        if asked_for && !self.environment.iter().any(|(name, _)| name == "DATABASE_URL") {
            self.environment.push(("DATABASE_URL".to_owned(), emergent_test_postgres::database().await?));
        }
        Ok(())
    }
}

/// A running server with a data directory of its own.
pub struct Server {
    child: Child,
    data: TempDir,
    port: u16,
    options: ServerOptions,
    id: String,
    /// The server's machines, if it runs any; they end with it.
    machines: Option<Machines>,
    /// A client with the bootstrap token.
    pub api: Api,
    /// The engine beneath.
    pub engine: Engine,
}

impl Server {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error holds its log.
    pub async fn start(mut options: ServerOptions) -> anyhow::Result<Self> {
        options.use_postgres_if_asked_for().await?;
        Self::start_in(new_data_directory()?, options, &[]).await
    }

    /// Starts a server in a data directory that is there already, such as a copy, with arguments for this one start.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_in(data: TempDir, options: ServerOptions, arguments: &[&str]) -> anyhow::Result<Self> {
        let machines = (options.runtime == Runtime::Qemu).then(Machines::new).transpose()?;
        let port = free_port()?;
        let child = spawn(&options, machines.as_ref(), &data, port, arguments)?;
        let api = Api::new(format!("http://127.0.0.1:{port}"), "")?;
        let engine = Engine::connect()?;
        let mut server = Self { child, data, port, options, id: String::new(), machines, api, engine };
        server.await_ready().await?;
        Ok(server)
    }

    /// Starts a server that is to end by itself, and waits until it has; returns whether it says that it succeeded, and
    /// its log.
    ///
    /// # Errors
    /// When the server does not end within 90 s.
    pub async fn fails_in(data: &TempDir, options: &ServerOptions) -> anyhow::Result<(bool, String)> {
        let mut child = spawn(options, None, data, free_port()?, &[])?;
        let ended = {
            let child = Mutex::new(&mut child);
            crate::until("the server ends by itself", Duration::from_secs(90), || async {
                Ok(try_wait(&child)?.ok_or_else(|| "it runs".to_owned()))
            })
            .await
        };
        if ended.is_err() {
            child.kill().context("ending a server that was to end by itself")?;
        }
        let log = std::fs::read_to_string(data.path().join("log")).unwrap_or_default();
        Ok((ended?.success(), log))
    }

    /// Copies the data directory as it is now, without its log.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_data(&self) -> anyhow::Result<TempDir> {
        let copy = new_data_directory()?;
        for file in std::fs::read_dir(self.data.path()).context("reading the data directory")? {
            let file = file.context("reading the data directory")?;
            if file.file_name() != "log" && file.path().is_file() {
                std::fs::copy(file.path(), copy.path().join(file.file_name())).context("copying a file")?;
            }
        }
        Ok(copy)
    }

    /// Starts a server with nothing special on a runtime.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn on(runtime: Runtime) -> anyhow::Result<Self> {
        Self::start(ServerOptions::on(runtime)).await
    }

    /// Ends the process as a power cut would.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing the server")?;
        self.child.wait().context("waiting for the server")?;
        Ok(())
    }

    /// Asks the process to end and waits until it has.
    ///
    /// # Errors
    /// When it does not end within 20 s.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.await_exit(Duration::from_secs(20)).await
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it has not within `at_most`.
    pub async fn await_exit(&mut self, at_most: Duration) -> anyhow::Result<()> {
        let child = Mutex::new(&mut self.child);
        crate::until("the server ends", at_most, || async {
            Ok(try_wait(&child)?.map(drop).ok_or_else(|| "still running".to_owned()))
        })
        .await
    }

    /// Starts the process again on the same data, with changed variables, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self, change: impl FnOnce(&mut ServerOptions)) -> anyhow::Result<()> {
        self.respawn(change)?;
        self.await_ready().await
    }

    /// Starts the process again without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn respawn(&mut self, change: impl FnOnce(&mut ServerOptions)) -> anyhow::Result<()> {
        change(&mut self.options);
        self.child = spawn(&self.options, self.machines.as_ref(), &self.data, self.port, &[])?;
        Ok(())
    }

    /// Waits until the server answers that it is ready.
    ///
    /// # Errors
    /// When it ends or stays unready for 40 s; the error holds its log.
    pub async fn await_ready(&mut self) -> anyhow::Result<()> {
        let ready = self.probe_ready().await;
        if ready.is_err() {
            eprint_log(&self.log());
        }
        ready?;
        let token = match &self.options.token {
            Some(token) => token.clone(),
            None => std::fs::read_to_string(self.data.path().join("bootstrap-token")).context("the bootstrap token")?,
        };
        self.api = self.api.with_token(token.trim());
        let log = self.log();
        let listening = log.lines().rfind(|line| line.contains("listening on "));
        let id = listening.and_then(|line| line.split_once(" server="));
        let id = id.and_then(|(_, rest)| rest.split_whitespace().next());
        self.id = id.context("no server id in the log")?.to_owned();
        if self.machines.is_some() { self.await_machines().await } else { Ok(()) }
    }

    /// Waits until machines can be run; the server finds that out by booting one.
    async fn await_machines(&self) -> anyhow::Result<()> {
        crate::until("machines can be run", Duration::from_secs(90), || async {
            let providers = self.api.get(&format!("{WORKSPACES}/providers")).await?.success()?;
            let mut items = providers["items"].as_array().into_iter().flatten();
            let works = items.any(|provider| provider["provider"] == "firecracker" && provider["healthy"] == true);
            Ok(works.then_some(()).ok_or_else(|| providers.to_string()))
        })
        .await
    }

    async fn probe_ready(&mut self) -> anyhow::Result<()> {
        let api = self.api.clone();
        let child = Mutex::new(&mut self.child);
        crate::until("the server is ready", Duration::from_secs(40), || async {
            ensure!(try_wait(&child)?.is_none(), "the server ended");
            let answer = api.get("/ready").await;
            Ok(match answer {
                Ok(reply) if reply.status.is_success() => Ok(()),
                Ok(reply) => Err(format!("{}: {}", reply.status, reply.body)),
                Err(error) => Err(format!("{error:#}")),
            })
        })
        .await
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the server's process id")?;
        kill_process(pid, signal).context("signalling the server")
    }

    /// The id that the engine's labels carry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the engine has nothing of this server's any more. (The objects of its probes go by themselves.)
    ///
    /// # Errors
    /// When something stays for 30 s.
    pub async fn await_nothing_left(&self) -> anyhow::Result<()> {
        crate::until("nothing is left in the engine", Duration::from_secs(30), || async {
            let left = self.engine.resources_of_server(self.id()).await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await
    }

    /// Returns the server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// The server's machines, if it runs any.
    pub fn machines(&self) -> Option<&Machines> {
        self.machines.as_ref()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data.path().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What cannot be ended any more needs no ending.
        drop(self.child.kill());
        drop(self.child.wait());
        if !self.id.is_empty() {
            crate::engine::remove_all_of(&self.id);
        }
    }
}

/// The path of a program: in `LIVE_BIN_DIR`, as the Makefile sets it.
///
/// # Errors
/// When the variable is not set.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("LIVE_BIN_DIR").context("LIVE_BIN_DIR is not set; run `make live`")?;
    Ok(PathBuf::from(folder).join(name))
}

/// The program that a variable names, or else one of this name in the path.
pub fn program_or(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

/// Returns the variables that make workspaces run on a runtime.
fn variables_of(runtime: Runtime, machines: Option<&Machines>) -> Vec<(&'static str, OsString)> {
    let Some(machines) = machines else { return vec![("WORKSPACE_GVISOR_RUNTIME", runtime.name().into())] };
    vec![
        ("WORKSPACE_DEFAULT_PROVIDER", "firecracker".into()),
        ("WORKSPACE_FIRECRACKER_DIR", machines.base().into()),
        ("WORKSPACE_FIRECRACKER_DRIVER", "qemu-tcg".into()),
        // Interfaces are known by their names, so that a network namespace has room for one process that makes them.
        ("WORKSPACE_FIRECRACKER_NETWORK", "none".into()),
        // Small, as what emulates them is slow.
        ("WORKSPACE_DEFAULT_CPU", "1".into()),
        ("WORKSPACE_DEFAULT_MEMORY", "512M".into()),
        ("WORKSPACE_DEFAULT_DISK", "1G".into()),
    ]
}

fn new_data_directory() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("emergent-live-").tempdir().context("making a data directory")
}

fn spawn(
    options: &ServerOptions,
    machines: Option<&Machines>,
    data: &TempDir,
    port: u16,
    arguments: &[&str],
) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.path().join("log"))?;
    Command::new(program("emergent")?)
        .arg("serve")
        .args(arguments)
        .env("ENABLE_AGENT_WORKSPACES", "true")
        .env("EMERGENT_DATA_DIR", data.path())
        .env("EMERGENT_LISTEN", format!("127.0.0.1:{port}"))
        .envs(variables_of(options.runtime, machines))
        .envs(options.environment.iter().map(|(name, value)| (name, value_of(name, value, port))))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting the server")
}

/// The value of a variable; the address that others reach the server at is known only now.
fn value_of(name: &str, value: &str, port: u16) -> String {
    if name == ADVERTISED { format!("http://127.0.0.1:{port}") } else { value.to_owned() }
}

fn try_wait(child: &Mutex<&mut Child>) -> anyhow::Result<Option<ExitStatus>> {
    let mut child = child.lock();
    child.try_wait().context("asking whether the server has ended")
}

/// A port that nothing listens on now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("looking for a free port")?.local_addr()?.port())
}

#[expect(clippy::print_stderr, reason = "a failed start is explained by the server's own log")]
fn eprint_log(log: &str) {
    eprintln!("--- the server's log ---\n{log}");
}
