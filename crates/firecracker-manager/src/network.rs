//! Network interfaces of machines, as this service needs them: what makes them is put in from outside.

mod host;

use std::collections::HashSet;

use async_trait::async_trait;
use emergent_microvm::TapInterface;
pub use host::HostInterfaces;

use crate::{SandboxId, record::NetworkWord};

/// Makes and removes network interfaces. All of it may be repeated.
#[async_trait]
pub trait Interfaces: Send + Sync {
    /// Why no sandbox can have an interface, where that is so; with what to do about it.
    fn unavailable(&self) -> Option<String>;

    /// Makes a sandbox's interface for the user `owner`, or finds it again with the same addresses; `None` for no network.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing is left then.
    async fn attach(
        &self,
        id: SandboxId,
        policy: NetworkWord,
        owner: u32,
    ) -> Result<Option<TapInterface>, NetworkError>;

    /// Removes a sandbox's interface; that there is none is no error.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn detach(&self, id: SandboxId) -> Result<(), NetworkError>;

    /// Removes every interface that belongs to none of these.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn remove_strays(&self, known: &HashSet<SandboxId>) -> Result<(), NetworkError>;
}

/// Why an interface could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// This service makes none.
    #[error("{0}")]
    Unavailable(String),
    /// What makes them failed.
    #[error("the network helper failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// No network: sandboxes have loopback and their channel.
#[derive(Debug, Clone)]
pub struct NoInterfaces {
    /// Why, and what to do about it.
    pub reason: String,
}

#[async_trait]
impl Interfaces for NoInterfaces {
    fn unavailable(&self) -> Option<String> {
        Some(self.reason.clone())
    }

    async fn attach(&self, _: SandboxId, policy: NetworkWord, _: u32) -> Result<Option<TapInterface>, NetworkError> {
        match policy {
            NetworkWord::None => Ok(None),
            NetworkWord::Isolated | NetworkWord::Outbound => Err(NetworkError::Unavailable(self.reason.clone())),
        }
    }

    async fn detach(&self, _: SandboxId) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn remove_strays(&self, _: &HashSet<SandboxId>) -> Result<(), NetworkError> {
        Ok(())
    }
}
