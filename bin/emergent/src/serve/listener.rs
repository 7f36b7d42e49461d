//! The socket: bound early, so that a taken address is reported before anything else is done; served with or without
//! TLS; and drained within a bounded time.

mod answer;
mod connection;
mod places;
mod stall;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use self::{
    connection::{Connection, Stop},
    places::Places,
};
use super::signals::StopSignals;
use crate::config::{ConnectionLimits, TlsFiles};

/// The pause after a connection could not be taken, as when the system has no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// The keep-alive of connections: how long a connection is idle before the system probes the peer, the time between
/// probes, and the number of unanswered probes after which the connection is dead.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// Binds the address, which `setting` names.
pub(crate) fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("{address} cannot be listened on; set {setting} to another address"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until a stop signal; then accepts no more connections, and gives calls under way `grace` to end. A second
/// signal ends them at once.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    tls: Option<TlsFiles>,
    router: Router,
    mut signals: StopSignals,
    grace: Duration,
    limits: ConnectionLimits,
) -> anyhow::Result<()> {
    let tls = tls.map(|files| acceptor(&files)).transpose()?;
    let listener = TcpListener::from_std(listener).context("the listener failed")?;
    let (connections, stop) = (TaskTracker::new(), Stop::default());
    let accepting = accept(&listener, tls, router, Places::new(limits), &connections, &stop);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = accepting => match never {},
    };
    tracing::info!(signal, grace_seconds = grace.as_secs(), "stopping");
    drop(listener);
    stop.gently.cancel();
    connections.close();
    tokio::select! {
        // Whatever has not ended by then is cut off below.
        _ = timeout(grace, connections.wait()) => {}
        signal = signals.next() => tracing::warn!(signal, "stopping at once"),
    }
    stop.at_once.cancel();
    connections.wait().await;
    Ok(())
}

/// Accepts connections for as long as it is polled.
async fn accept(
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    places: Arc<Places>,
    connections: &TaskTracker,
    stop: &Stop,
) -> std::convert::Infallible {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(taken) => taken,
            Err(error) => {
                // A peer that has gone away meanwhile is nobody's fault.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // Without a place it is closed here.
        let Some(place) = places.take(address.ip()) else { continue };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection could not be prepared");
            continue;
        }
        let connection = Connection::new(place, router.clone(), stop.clone());
        connections.spawn(connection.serve(stream, tls.clone()));
    }
}

/// Sets a connection's options: small answers are sent at once, and a peer that is gone is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
    let (idle, interval, count) = KEEP_ALIVE;
    stream.set_nodelay(true)?;
    set_socket_keepalive(stream, true)?;
    set_tcp_keepidle(stream, idle)?;
    set_tcp_keepintvl(stream, interval)?;
    set_tcp_keepcnt(stream, count)?;
    Ok(())
}

fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let read = || -> anyhow::Result<ServerConfig> {
        let certificates = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&files.key)?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    };
    let config = read().with_context(|| {
        format!(
            "EMERGENT_TLS_CERT {} and EMERGENT_TLS_KEY {} cannot be used",
            files.cert.display(),
            files.key.display()
        )
    })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
