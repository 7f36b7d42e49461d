//! Network interfaces of machines, as this service needs them; the implementation is passed in from outside.

mod host;

use std::collections::HashSet;

use async_trait::async_trait;
use emergent_microvm::TapInterface;
pub use host::HostInterfaces;

use crate::{SandboxId, record::NetworkWord};

/// Makes and removes network interfaces. Every call may be repeated.
#[async_trait]
pub trait Interfaces: Send + Sync {
    /// The reason why no sandbox can have an interface, with a remedy; `None` if sandboxes can.
    fn unavailable(&self) -> Option<String>;

    /// Makes a sandbox's interface for the user `owner`, or finds it again with the same addresses; `None` for no
    /// network.
    ///
    /// # Errors
    /// [`NetworkError`]; no interface is left then.
    async fn attach(
        &self,
        id: SandboxId,
        policy: NetworkWord,
        owner: u32,
    ) -> Result<Option<TapInterface>, NetworkError>;

    /// Removes a sandbox's interface; a missing interface is no error.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn detach(&self, id: SandboxId) -> Result<(), NetworkError>;

    /// Removes every interface that belongs to none of the `known` sandboxes.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn remove_strays(&self, known: &HashSet<SandboxId>) -> Result<(), NetworkError>;
}

/// The reason why an interface could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// This service makes no interfaces.
    #[error("{0}")]
    Unavailable(String),
    /// The implementation of networks failed.
    #[error("the network helper failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// No network: sandboxes have loopback and their channel.
#[derive(Debug, Clone)]
pub struct NoInterfaces {
    /// The reason why there is none, and a remedy.
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
