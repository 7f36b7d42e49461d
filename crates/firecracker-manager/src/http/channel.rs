//! The raw byte stream to a guest, for a server elsewhere: an HTTP/1.1 upgrade, after which the connection is the
//! channel.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use super::{
    Shared,
    extract::SandboxPath,
    problem::{Kind, Problem},
};

/// The protocol's name in the `Upgrade` header.
pub const CHANNEL_PROTOCOL: &str = "emergent-channel";

/// The size of the buffer of each direction, in bytes.
const BUFFER: usize = 64 * 1024;

/// `GET /sandboxes/{id}/channel`
pub(super) async fn open(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    mut request: Request,
) -> Result<Response, Problem> {
    let wanted = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(CHANNEL_PROTOCOL)) {
        let detail = format!("send `Connection: Upgrade` and `Upgrade: {CHANNEL_PROTOCOL}`, on HTTP/1.1");
        return Err(Problem::new(Kind::UpgradeRequired, detail));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let mut guest = shared.sandboxes.open(id).await?;
    shared.sandboxes.spawn_relay(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut caller = TokioIo::new(upgraded);
        // Either side goes away whenever it likes.
        copy_bidirectional_with_sizes(&mut caller, &mut guest, BUFFER, BUFFER).await.ok();
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(CHANNEL_PROTOCOL));
    Ok(response)
}
