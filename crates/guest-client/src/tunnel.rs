//! TCP connections to ports inside the sandbox, each on one stream of the connection to its guest.

use std::io;

use bytes::Bytes;
use emergent_guest_proto::{Route, child::TunnelQuery};
use emergent_provider::ByteStream;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::{io::join, sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{
    io::{CopyToBytes, SinkWriter, StreamReader},
    sync::PollSender,
};

use crate::{
    Guest, GuestCallError, body,
    call::{QUICK, accepted, room_for_stream, send, with_query},
};

/// Pieces between the caller and the connection.
const QUEUE: usize = 8;

// === impl Guest ===

impl Guest {
    /// Connects to a TCP port on the sandbox's own loopback interface. It goes over the connection for bulk: what is
    /// tunnelled may be large.
    ///
    /// # Errors
    /// `not_running` from the guest when nothing listens there.
    pub async fn tunnel(&self, port: u16) -> Result<ByteStream, GuestCallError> {
        let path = with_query(Route::Tunnel.path(), &TunnelQuery { port })?;
        let room = room_for_stream().await?;
        let deadline = Instant::now() + QUICK;
        let sender = std::sync::Mutex::new(None);
        let request = || {
            let (pieces, body) = mpsc::channel::<Bytes>(QUEUE);
            if let Ok(mut sender) = sender.lock() {
                *sender = Some(pieces);
            }
            body::request(Route::Tunnel, &path).body(body::streamed(ReceiverStream::new(body).map(Ok)))
        };
        let sent = tokio::time::timeout_at(deadline, send(&self.bulk, deadline, request)).await;
        let sent = sent.map_err(|_| GuestCallError::timeout(QUICK))?;
        let answer = accepted(sent?).await?;
        let pieces = sender.into_inner().ok().flatten();
        let pieces = pieces.ok_or_else(|| GuestCallError::Nonsense("a stream without a sender".to_owned()))?;
        let connection = answer.connection;
        let output = answer.response.into_body().into_data_stream().map(move |data| {
            // Held so that the connection, and the room for what it has in memory, stay while the tunnel is used.
            let _ = (&connection, &room);
            data.map_err(io::Error::other)
        });
        let input = PollSender::new(pieces).sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        Ok(Box::new(join(StreamReader::new(Box::pin(output)), SinkWriter::new(CopyToBytes::new(input)))))
    }
}
