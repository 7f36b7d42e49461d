//! Passes one request on to another server, and its answer back: both streamed and unchanged.

use emergent_types::error_chain;
use std::{io, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use emergent_core::{ServerId, ServerRow};
use futures::StreamExt as _;
use tokio::time::sleep;

use super::FORWARDED_BY;
use crate::{
    http::problem::{ProblemKind, Refusal},
    state::ApiState,
};

/// The interval between two checks whether a server that is being waited for is still alive.
const LOOK: Duration = Duration::from_secs(5);

/// The headers that belong to one connection and not to the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Passes a request on, and the answer back.
pub(super) async fn pass_on(state: &ApiState, server: &ServerRow, request: Request) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let base = server.url.as_deref().unwrap_or_default().trim_end_matches('/');
    strip(&mut parts.headers);
    parts.headers.remove(header::HOST);
    let own = HeaderValue::try_from(state.workspaces().servers().id().to_string());
    parts.headers.insert(FORWARDED_BY, own.unwrap_or(HeaderValue::from_static("unknown")));
    let mut onward = state.peers().client()?.request(parts.method, format!("{base}{path}")).headers(parts.headers);
    if !body.is_end_stream() {
        onward = onward.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let gone = gone(state.clone(), server.id);
    let mut gone = Box::pin(gone);
    let answer = tokio::select! {
        answer = onward.send() => answer.map_err(|error| failed(server, &error))?,
        () = &mut gone => return Err(interrupted(server)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    strip(response.headers_mut());
    let mut chunks = answer.bytes_stream();
    *response.body_mut() = Body::from_stream(async_stream::stream! {
        loop {
            tokio::select! {
                chunk = chunks.next() => match chunk {
                    Some(chunk) => yield chunk.map_err(io::Error::other),
                    None => return,
                },
                // Cut off, so that nobody takes what has come for the whole.
                () = &mut gone => {
                    yield Err(io::Error::other("the server that was asked does not live any more"));
                    return;
                }
            }
        }
    });
    Ok(response)
}

/// Completes when a server's lease has ended: a suspended server keeps its connections open and never answers.
async fn gone(state: ApiState, server: ServerId) {
    loop {
        sleep(LOOK).await;
        // While the store does not answer, nobody can tell.
        if let Ok(servers) = state.workspaces().servers().list().await
            && !servers.iter().any(|it| it.id == server && it.alive)
        {
            return;
        }
    }
}

/// Removes the headers that are not for the next hop.
fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|names| names.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    for name in named.collect::<Vec<_>>() {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

fn failed(server: &ServerRow, error: &reqwest::Error) -> Refusal {
    tracing::warn!(server = %server.title(), error = error_chain(error), "a request could not be passed on");
    if error.is_connect() || error.is_builder() {
        let detail = format!("the server {}, which has it, cannot be reached; nothing was done", server.title());
        return Refusal::new(ProblemKind::ServerAway, detail).retry_after(10);
    }
    interrupted(server)
}

fn interrupted(server: &ServerRow) -> Refusal {
    let detail = format!(
        "the connection to the server {}, which has it, broke; the call may have happened all the same",
        server.title()
    );
    Refusal::new(ProblemKind::CallInterrupted, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-private, keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("authorization", "Bearer x"),
            ("content-length", "5"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left = headers.keys().map(HeaderName::as_str).collect::<Vec<_>>();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length"]);
    }
}
