//! How a client gets a byte stream to its guest.

use async_trait::async_trait;
use emergent_provider::{ByteStream, ChannelError};

/// Opens byte streams to one guest; what a [`Guest`](crate::Guest) asks when it has no connection.
#[async_trait]
pub trait Open: Send + Sync + 'static {
    /// Opens one more stream. Others may be open. Dropping the stream closes it.
    async fn open(&self) -> Result<ByteStream, ChannelError>;
}
