//! Serves one stdio MCP server over HTTP: `serve [--shared] ADDRESS PROGRAM [ARGUMENT…]`.
//!
//! Prints `listening on http://ADDRESS/mcp` once it is.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, extract::Request, routing::any, serve::ListenerExt as _};
use emergent_mcp::{Bridge, BridgeConfig, ProcessLauncher, Sharing};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1).peekable();
    let shared = args.next_if(|arg| arg == "--shared").is_some();
    let address = args.next().and_then(|arg| arg.into_string().ok()).context("an address to listen on")?;
    let sharing = if shared { Sharing::Shared } else { Sharing::PerSession };
    // Test suites open many sessions and end none.
    let config = BridgeConfig { sharing, max_sessions: 256, ..BridgeConfig::default() };
    let bridge = Arc::new(Bridge::start(Arc::new(ProcessLauncher::new(args)), config).await?);

    let mounted = Arc::clone(&bridge);
    let handle = move |request: Request| {
        let bridge = Arc::clone(&mounted);
        async move { bridge.handle(request).await }
    };
    let listener = TcpListener::bind(address.parse::<SocketAddr>().context("the address is IP:PORT")?).await?;
    let local = listener.local_addr()?;
    // Without this a small answer waits for the client's acknowledgement, up to 40 ms.
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap_or_default());
    writeln!(std::io::stdout(), "listening on http://{local}/mcp")?;
    let stop = async { signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, Router::new().route("/mcp", any(handle))).with_graceful_shutdown(stop).await?;
    bridge.shut_down(Duration::from_secs(5)).await;
    Ok(())
}
