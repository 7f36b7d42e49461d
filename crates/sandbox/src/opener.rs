//! The client of a sandbox's guest, which reaches the guest through the sandbox's provider.

use std::sync::Arc;

use async_trait::async_trait;
use emergent_guest_client::{Guest, Open};
use emergent_provider::{ByteStream, ChannelError, Provider};
use emergent_types::SandboxId;

/// Opens channels to one sandbox.
struct Opener<F> {
    provider: Option<Arc<dyn Provider>>,
    sandbox: SandboxId,
    not_running: F,
}

/// Makes a client for a sandbox's guest, without a connection. `first` is a channel that is open already. Without a
/// provider, as where this server has none of the sandbox's kind, every call fails.
///
/// `not_running` is called whenever the provider says that the sandbox does not run; it must not block.
pub fn guest_of(
    provider: Option<Arc<dyn Provider>>,
    sandbox: SandboxId,
    first: Option<ByteStream>,
    not_running: impl Fn() + Send + Sync + 'static,
) -> Guest {
    Guest::new(Arc::new(Opener { provider, sandbox, not_running }), first)
}

#[async_trait]
impl<F: Fn() + Send + Sync + 'static> Open for Opener<F> {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let provider = self.provider.as_ref().ok_or(ChannelError::NotRunning)?;
        let opened = provider.open(self.sandbox).await;
        if matches!(opened, Err(ChannelError::NotRunning)) {
            (self.not_running)();
        }
        opened
    }
}
