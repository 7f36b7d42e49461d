//! Docker's socket behind a proxy that can be cut, so that one case can lose Docker while the others keep it.

use std::path::PathBuf;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
};

/// A Unix socket that leads to Docker's until it is cut.
pub struct DockerProxy {
    folder: TempDir,
    forwarding: Option<JoinHandle<()>>,
}

impl DockerProxy {
    /// Starts forwarding.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("emergent-docker-").tempdir().context("making a folder")?;
        let mut proxy = Self { folder, forwarding: None };
        proxy.mend().await?;
        Ok(proxy)
    }

    /// The value for `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Ends every connection and refuses new ones.
    ///
    /// # Errors
    /// When the socket cannot be removed.
    pub async fn cut(&mut self) -> anyhow::Result<()> {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.abort();
            // Aborted on purpose; the connections are dropped with the task.
            drop(forwarding.await);
        }
        std::fs::remove_file(self.socket()).context("removing the proxy's socket")
    }

    /// Forwards again.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn mend(&mut self) -> anyhow::Result<()> {
        let listener = UnixListener::bind(self.socket()).context("listening on the proxy's socket")?;
        self.forwarding = Some(tokio::spawn(forward(listener)));
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.abort();
        }
    }
}

async fn forward(listener: UnixListener) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut docker) = UnixStream::connect("/var/run/docker.sock").await {
                // However the connection ends, both sides see it.
                drop(copy_bidirectional(&mut client, &mut docker).await);
            }
        });
    }
}
