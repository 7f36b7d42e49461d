//! A TCP connection to a port inside the sandbox, carried by one HTTP/2 stream: no network is needed for it.

use std::net::Ipv4Addr;

use emergent_guest_proto::{ErrorCode, GuestError, child::TunnelQuery};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::message::{Reply, query, stream};

/// The most bytes that are read from the connection at once.
const READ: usize = 64 * 1024;

/// Connects, and joins the request's body and the answer's to the connection.
///
/// # Errors
/// `not_running` when no process listens there.
pub async fn tunnel(request: Request<Incoming>) -> Result<Reply, GuestError> {
    let TunnelQuery { port } = query(request.uri())?;
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let connection = connected.map_err(|error| {
        let message = format!("nothing can be reached on port {port} inside: {error}");
        GuestError::new(ErrorCode::NotRunning, message)
    })?;
    // Best effort: without it small messages may wait.
    let _ = connection.set_nodelay(true);
    let (mut from, mut to) = connection.into_split();
    let mut body = request.into_body();
    let sending = tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && to.write_all(&data).await.is_err()
            {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
    let bytes = async_stream::try_stream! {
        // Ends with whoever reads the answer.
        let _sending = AbortOnDrop(sending);
        let mut buffer = vec![0; READ];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return;
            }
            yield bytes::Bytes::copy_from_slice(&buffer[..count]);
        }
    };
    Ok(stream(bytes))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
