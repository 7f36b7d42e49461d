//! The byte stream from the server to a guest.

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that can be read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A byte stream to a guest; what runs on it is one HTTP/2 connection. Its end says nothing of the guest's life.
pub type ByteStream = Box<dyn Duplex>;
