//! HTTP-based servers: requests are passed on through the guest to a port inside, so that the sandbox needs no network.

use emergent_types::error_chain;
use std::time::Duration;

use bytes::Bytes;
use emergent_budget::Exhausted;
use emergent_guest_client::{Guest, GuestCallError};
use emergent_mcp::SessionOwner;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::session_key::SessionKey;

/// The error of a body that broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an endpoint's answer.
pub(crate) type EndpointBody = UnsyncBoxBody<Bytes, BodyError>;

/// The headers of a request that are not passed on: those that belong to one connection rather than to a message, and
/// the caller's credentials, which are nobody's business inside.
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

/// The headers of an answer that are passed on as they are: those that a client of the protocol needs. Besides them
/// only the type and the session go out, both checked: a page of a server must not set cookies for this host, send its
/// readers elsewhere, or ask them for other credentials.
const ANSWERED: [HeaderName; 7] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::RETRY_AFTER,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("x-accel-buffering"),
];
/// The media types of the protocol's answers.
const ANSWERS: [&str; 2] = ["application/json", "text/event-stream"];
/// The buffer of the connection to a server, in bytes; a head is no longer.
const BUFFER: usize = 64 * 1024;
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Passes requests on to one server.
pub(crate) struct Proxy {
    guest: Guest,
    port: u16,
    path: String,
    body_limit: usize,
    sessions: SessionKey,
    /// Cancelled when the server is ended: streams under way end.
    over: CancellationToken,
}

/// The reason for which a request was not passed on.
#[derive(Debug)]
enum PassError {
    /// There is no room for what its answer has in memory.
    Busy(Exhausted),
    /// The server cannot be reached, for this reason.
    Unreachable(String),
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(guest: Guest, port: u16, path: String, body_limit: usize, sessions: SessionKey) -> Self {
        Self { guest, port, path, body_limit, sessions, over: CancellationToken::new() }
    }

    /// The port on which the server listens inside.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the requests and streams under way.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Answers one request; the head of the answer may take as long as `patience`.
    pub(crate) async fn handle<B>(&self, mut request: Request<B>, patience: Duration) -> Response<EndpointBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let owner = request.extensions().get::<SessionOwner>().map_or("", |owner| &owner.0).to_owned();
        if let Some(session) = request.headers().get(SESSION) {
            let Some(inner) = self.sessions.inward(&owner, session) else {
                return refusal(StatusCode::NOT_FOUND, "there is no such session (any more); send `initialize` again");
            };
            request.headers_mut().insert(SESSION, inner);
        }
        let response = self.answer(request, patience).await;
        if response.status().is_redirection() {
            return refusal(
                StatusCode::BAD_GATEWAY,
                "the server sends its clients elsewhere, which no client of it is",
            );
        }
        let (mut head, body) = response.into_parts();
        head.headers = self.answered(&head.headers, &owner);
        Response::from_parts(head, body)
    }

    /// Returns the headers of an answer that the caller gets.
    fn answered(&self, from: &HeaderMap, owner: &str) -> HeaderMap {
        let passed = |name: HeaderName| from.get(&name).map(|value| (name, value.clone()));
        let mut headers: HeaderMap = ANSWERED.into_iter().filter_map(passed).collect();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(kind) = from.get(header::CONTENT_TYPE) {
            let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            let is_answer = ANSWERS.iter().any(|answer| essence.eq_ignore_ascii_case(answer));
            let other = HeaderValue::from_static("application/octet-stream");
            headers.insert(header::CONTENT_TYPE, if is_answer { kind.clone() } else { other });
        }
        if let Some(session) = from.get(SESSION).and_then(|inner| self.sessions.outward(owner, inner)) {
            headers.insert(SESSION, session);
        }
        headers
    }

    async fn answer<B>(&self, request: Request<B>, patience: Duration) -> Response<EndpointBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        match timeout(patience, self.pass_on(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(PassError::Busy(exhausted))) => {
                let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, &exhausted.to_string());
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
                response
            }
            Ok(Err(PassError::Unreachable(reason))) => {
                refusal(StatusCode::BAD_GATEWAY, &format!("the server cannot be reached: {reason}"))
            }
            Err(_) => {
                let seconds = patience.as_secs_f32();
                let text = format!(
                    "the server did not answer within {seconds} s, and nothing was restarted; \
                     its setting `call_timeout_ms` (`emergent mcp update --timeout SECONDS`) gives it longer"
                );
                refusal(StatusCode::GATEWAY_TIMEOUT, &text)
            }
        }
    }

    async fn pass_on<B>(&self, request: Request<B>) -> Result<Response<EndpointBody>, PassError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let tunnel = self.guest.tunnel(self.port).await.map_err(|error| match error {
            GuestCallError::Exhausted(exhausted) => PassError::Busy(exhausted),
            error => PassError::unreachable(&error),
        })?;
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(tunnel)).await;
        let (mut sender, connection) = handshake.map_err(|error| PassError::unreachable(&error))?;
        let over = self.over.clone();
        tokio::spawn(async move {
            // A connection that breaks is seen by whoever reads the answer.
            let _ = over.run_until_cancelled(connection).await;
        });
        let (mut head, body) = request.into_parts();
        let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("{}{query}", self.path).parse::<Uri>();
        head.uri = uri.map_err(|error| PassError::unreachable(&error))?;
        head.version = http::Version::HTTP_11;
        for name in NOT_PASSED_ON {
            head.headers.remove(name);
        }
        let host = HeaderValue::try_from(format!("localhost:{}", self.port));
        head.headers.insert(header::HOST, host.map_err(|error| PassError::unreachable(&error))?);
        let body = Limited::new(body.map_err(std::io::Error::other).boxed_unsync(), self.body_limit);
        let body = body.map_err(std::io::Error::other).boxed_unsync();
        let response = sender.send_request(Request::from_parts(head, body)).await;
        let response = response.map_err(|error| PassError::unreachable(&error))?;
        let (head, body) = response.into_parts();
        // The sender stays for as long as the body is read, or its connection would end.
        let body = body.map_frame(move |frame| {
            let _ = &sender;
            frame
        });
        Ok(Response::from_parts(head, body.map_err(|error| Box::new(error) as BodyError).boxed_unsync()))
    }
}

// === impl PassError ===

impl PassError {
    fn unreachable(error: &dyn std::error::Error) -> Self {
        Self::Unreachable(error_chain(error))
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
