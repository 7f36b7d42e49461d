//! Channels by vsock: each connection is one.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::machine::VSOCK_PORT;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::{guest::Guest, http};

/// Accepts channels for the life of the guest. A machine without vsock has none, which is no error.
pub(super) async fn serve(guest: Arc<Guest>) {
    let listener = match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, VSOCK_PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::info!(%error, "no channels by vsock");
            return;
        }
    };
    loop {
        match listener.accept().await {
            // Programs inside could connect over a loopback device; they are not the host.
            Ok((stream, from)) if from.cid() == VMADDR_CID_HOST => {
                drop(tokio::spawn(http::serve(Arc::clone(&guest), stream)));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a channel by vsock could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
