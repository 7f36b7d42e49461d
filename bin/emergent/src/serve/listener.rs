//! The socket: bound early, so that a taken address is said before anything is done; served with or without TLS; and
//! drained within a bounded time.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use axum_server::{
    Handle,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};

use super::signals::StopSignals;
use crate::config::TlsFiles;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Binds the address, which `setting` names.
pub(crate) fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{address} cannot be listened on; set {setting} to another address"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until a signal says stop; then takes no more connections, and gives calls under way `grace` to end. A second
/// signal ends them at once.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsFiles>,
    router: Router,
    signals: StopSignals,
    grace: Duration,
) -> anyhow::Result<()> {
    let handle = Handle::new();
    let stopper = tokio::spawn(stop_on_signal(signals, handle.clone(), grace));
    let service = router.into_make_service();
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(NoDelayAcceptor::new());
    server.http_builder().http1().header_read_timeout(HEADER_TIMEOUT).timer(hyper_util::rt::TokioTimer::new());
    let served = match tls {
        None => server.serve(service).await,
        Some(files) => {
            let tls = RustlsConfig::from_pem_file(&files.cert, &files.key).await.with_context(|| {
                format!(
                    "EMERGENT_TLS_CERT {} and EMERGENT_TLS_KEY {} cannot be used",
                    files.cert.display(),
                    files.key.display()
                )
            })?;
            server.map(|inner| RustlsAcceptor::new(tls).acceptor(inner)).serve(service).await
        }
    };
    stopper.abort();
    served.context("the listener failed")
}

async fn stop_on_signal(mut signals: StopSignals, handle: Handle<SocketAddr>, grace: Duration) {
    let signal = signals.next().await;
    tracing::info!(signal, grace_seconds = grace.as_secs(), "stopping");
    handle.graceful_shutdown(Some(grace));
    let signal = signals.next().await;
    tracing::warn!(signal, "stopping at once");
    handle.shutdown();
}
