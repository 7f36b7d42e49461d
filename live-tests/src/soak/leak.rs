//! The kinds of leaks, and leaks on purpose: a check that finds nothing proves nothing until it has found a leak that
//! was planted.

use std::{fmt, process::Stdio, str::FromStr};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    process::{Child, Command},
};

use super::testbed::Testbed;
use crate::api::{SNAPSHOTS, WORKSPACES};

macro_rules! leaks {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal;)+) => {
        /// A kind of thing that can be left behind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Leak {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Leak {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The leak's name in `SOAK_LEAK` and in findings.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

leaks! {
    /// A container that no row accounts for.
    Container = "container";
    /// A volume that no row accounts for.
    Volume = "volume";
    /// A network that nobody needs.
    Network = "network";
    /// An image that nobody needs.
    Image = "image";
    /// A snapshot that its owner does not know.
    Snapshot = "snapshot";
    /// A process that nobody needs.
    Process = "process";
    /// Descriptors of a server.
    Descriptor = "fd";
    /// A row that its owner does not know.
    Row = "row";
    /// A file in a server's data directory.
    File = "file";
    /// Threads of a server. Cannot be planted from outside.
    Thread = "thread";
    /// Memory of a server. Cannot be planted from outside.
    Memory = "memory";
    /// Store, engine and API differ.
    Disagreement = "disagreement";
}

/// A thing that was left behind, or a disagreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the thing.
    pub leak: Leak,
    /// The name or the description of the thing.
    pub what: String,
}

/// A planted leak, held until it is removed.
pub enum Planted {
    /// Removed by a command of the engine's client.
    Engine(Vec<String>),
    /// Ended when dropped.
    Process(Child),
    /// Closed when dropped.
    Connections(Vec<TcpStream>),
    /// Deleted through the API, at this path.
    Row(String),
    /// Removed from the disk.
    File(std::path::PathBuf),
}

// === impl Leak ===

impl Leak {
    /// Returns the leaks that the harness can plant from outside.
    pub fn plantable() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|leak| !matches!(leak, Self::Thread | Self::Memory | Self::Disagreement))
    }

    /// Plants a leak.
    ///
    /// # Errors
    /// When that does not work, or the leak cannot be planted from outside.
    pub async fn plant(self, testbed: &Testbed) -> anyhow::Result<Planted> {
        let subject = testbed.subjects.first().context("there is no server")?;
        match self {
            Self::Container => {
                docker(&["create", "--name", "emergent-leaked", "emergent-guest-carrier:1", "none"]).await?;
                Ok(Planted::Engine(vec!["rm".to_owned(), "emergent-leaked".to_owned()]))
            }
            Self::Volume => {
                docker(&["volume", "create", "emergent-leaked"]).await?;
                Ok(Planted::Engine(["volume", "rm", "emergent-leaked"].map(str::to_owned).to_vec()))
            }
            Self::Network => {
                docker(&["network", "create", "emergent-leaked"]).await?;
                Ok(Planted::Engine(["network", "rm", "emergent-leaked"].map(str::to_owned).to_vec()))
            }
            Self::Process => {
                let sleeper = Command::new("sleep").arg("86400").stdin(Stdio::null()).kill_on_drop(true).spawn();
                Ok(Planted::Process(sleeper.context("starting a process")?))
            }
            Self::Descriptor => {
                let address = subject.api.base().trim_start_matches("http://").to_owned();
                let mut connections = Vec::new();
                for _ in 0..40 {
                    let mut connection = TcpStream::connect(&address).await.context("connecting to a server")?;
                    // A request that never ends.
                    connection.write_all(b"GET /health HTTP/1.1\r\n").await.context("writing to a server")?;
                    connections.push(connection);
                }
                Ok(Planted::Connections(connections))
            }
            Self::Image => {
                docker(&["tag", "emergent/workspace:latest", "emergent-leaked:1"]).await?;
                Ok(Planted::Engine(["rmi", "emergent-leaked:1"].map(str::to_owned).to_vec()))
            }
            Self::Row => {
                let id = subject.api.create(json!({ "name": "leaked", "network": "none" })).await?;
                Ok(Planted::Row(format!("{WORKSPACES}/{id}")))
            }
            Self::Snapshot => {
                let source = subject.api.create(json!({ "name": "leaked", "network": "none" })).await?;
                let source = format!("{WORKSPACES}/{source}");
                let taken = subject.api.post(&format!("{source}/snapshots"), json!({})).await?.success()?;
                subject.api.delete(&source).await?.refusal(204)?;
                Ok(Planted::Row(format!("{SNAPSHOTS}/{}", taken["id"].as_str().context("no id")?)))
            }
            Self::File => {
                let path = subject.server.lock().await.data_dir().join("leaked.tmp");
                std::fs::write(&path, "leaked").context("writing a file")?;
                Ok(Planted::File(path))
            }
            Self::Thread | Self::Memory | Self::Disagreement => bail!("{self} cannot be planted from outside"),
        }
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Leak {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let names: Vec<_> = Self::plantable().map(Self::name).collect();
        let found = Self::plantable().find(|leak| leak.name() == text);
        found.with_context(|| format!("SOAK_LEAK takes {}, not {text:?}", names.join(", ")))
    }
}

// === impl Finding ===

impl Finding {
    /// A finding.
    pub fn new(leak: Leak, what: impl Into<String>) -> Self {
        Self { leak, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left behind ({}): {}", self.leak, self.what)
    }
}

// === impl Planted ===

impl Planted {
    /// Removes the leak again.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn remove(self, testbed: &Testbed) -> anyhow::Result<()> {
        match self {
            Self::Engine(arguments) => docker(&arguments).await,
            Self::Process(mut child) => child.kill().await.context("ending a process"),
            Self::Connections(connections) => {
                drop(connections);
                Ok(())
            }
            Self::Row(path) => {
                let subject = testbed.subjects.first().context("there is no server")?;
                subject.api.delete(&path).await?.refusal(204).map(drop)
            }
            Self::File(path) => std::fs::remove_file(path).context("removing a file"),
        }
    }
}

async fn docker(arguments: &[impl AsRef<std::ffi::OsStr>]) -> anyhow::Result<()> {
    let output = Command::new("docker").args(arguments).output().await.context("running docker")?;
    ensure!(output.status.success(), "docker: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
