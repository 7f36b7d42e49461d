//! HTTP-based servers: requests are passed on through the guest to a port inside, so that the sandbox needs no network.

use std::time::Duration;

use bytes::Bytes;
use emergent_guest_client::Guest;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::chain;

/// Why a body broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an endpoint's answer.
pub(crate) type EndpointBody = UnsyncBoxBody<Bytes, BodyError>;

/// What belongs to one connection rather than to a message, and what is nobody's business inside: the caller's token.
const NOT_PASSED_ON: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::COOKIE,
];

/// Passes requests on to one server.
pub(crate) struct Proxy {
    guest: Guest,
    port: u16,
    path: String,
    body_limit: usize,
    /// How long the head of an answer may take.
    patience: Duration,
    /// Cancelled when the server is to go: streams under way end.
    over: CancellationToken,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(guest: Guest, port: u16, path: String, body_limit: usize, patience: Duration) -> Self {
        Self { guest, port, path, body_limit, patience, over: CancellationToken::new() }
    }

    /// Ends what is under way.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Answers one request.
    pub(crate) async fn handle<B>(&self, request: Request<B>) -> Response<EndpointBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        match timeout(self.patience, self.pass_on(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(reason)) => refusal(StatusCode::BAD_GATEWAY, &format!("the server cannot be reached: {reason}")),
            Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "the server did not answer in time; nothing was restarted"),
        }
    }

    async fn pass_on<B>(&self, request: Request<B>) -> Result<Response<EndpointBody>, String>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let tunnel = self.guest.tunnel(self.port).await.map_err(|error| chain(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.map_err(|error| chain(&error))?;
        let over = self.over.clone();
        tokio::spawn(async move {
            // A connection that breaks is seen by whoever reads the answer.
            let _ = over.run_until_cancelled(connection).await;
        });
        let (mut head, body) = request.into_parts();
        let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri: Uri =
            format!("{}{query}", self.path).parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        head.uri = uri;
        head.version = http::Version::HTTP_11;
        for name in NOT_PASSED_ON {
            head.headers.remove(name);
        }
        let host = HeaderValue::try_from(format!("localhost:{}", self.port)).map_err(|error| error.to_string())?;
        head.headers.insert(header::HOST, host);
        let body = Limited::new(body.map_err(std::io::Error::other).boxed_unsync(), self.body_limit);
        let body = body.map_err(std::io::Error::other).boxed_unsync();
        let response = sender.send_request(Request::from_parts(head, body)).await.map_err(|error| chain(&error))?;
        let (mut head, body) = response.into_parts();
        for name in NOT_PASSED_ON {
            head.headers.remove(name);
        }
        // The sender stays for as long as the body is read, or its connection would end.
        let body = body.map_frame(move |frame| {
            let _ = &sender;
            frame
        });
        Ok(Response::from_parts(head, body.map_err(|error| Box::new(error) as BodyError).boxed_unsync()))
    }
}

fn refusal(status: StatusCode, text: &str) -> Response<EndpointBody> {
    let error = serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32603, "message": text } });
    let body = Full::new(Bytes::from(error.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
