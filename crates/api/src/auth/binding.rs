//! The layer around every handler that ends a request when the request's token ends.
//!
//! The extractor of the token binds the request to its token. When that token ends, a waiting handler is dropped, the
//! reading of a body breaks off, and an unfinished answer ends: a stream of events with the event `error`, any other
//! answer with an error, so that nobody takes the received part for the whole. Commands run on, as they do when a
//! client goes away.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use emergent_auth::{LivePrincipal, PrincipalEnd};
use futures::{FutureExt as _, future::BoxFuture};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

use crate::{
    facts::CallFacts,
    http::{observe::Verbatim, problem::Refusal},
};

/// The binding of a request to its token; travels with the request. Clones stand for the same binding.
#[derive(Clone, Default)]
pub(super) struct Binding(Arc<watch::Sender<Bound>>);

#[derive(Clone, Default)]
enum Bound {
    /// No extractor has asked for the token yet.
    #[default]
    Unknown,
    To(LivePrincipal),
    /// The call ends tokens, its own among them, and is still answered.
    Released,
}

/// A body that ends with a token.
struct Ending {
    body: Body,
    end: BoxFuture<'static, PrincipalEnd>,
    last_word: LastWord,
    has_ended: bool,
}

/// The way in which a body ends before its time.
#[derive(Clone)]
enum LastWord {
    /// The body ends with an error.
    Error,
    /// The body is a stream of events and ends with an event.
    Event(CallFacts),
    /// The body is a stream of another protocol, whose clients come back and are refused.
    Nothing,
}

/// The layer.
pub(crate) async fn bind(mut request: Request, next: Next) -> Response {
    let binding = Binding::default();
    request.extensions_mut().insert(binding.clone());
    let facts = request.extensions().get::<CallFacts>().cloned().unwrap_or_default();
    let request = match request.body().is_end_stream() {
        true => request,
        false => request.map(|body| Ending::of(body, binding.clone(), LastWord::Error)),
    };
    let response = tokio::select! {
        end = binding.clone().ended() => return Refusal::from(end).into_response(),
        response = next.run(request) => response,
    };
    // A handler whose body broke off with the token has something else to say of it.
    if let Some(end) = binding.clone().ended().now_or_never() {
        return Refusal::from(end).into_response();
    }
    // What is whole already is sent; it is what goes on that ends.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let last_word = match content_type {
        Some(b"text/event-stream") if response.extensions().get::<Verbatim>().is_some() => LastWord::Nothing,
        Some(b"text/event-stream") => LastWord::Event(facts),
        _ => LastWord::Error,
    };
    response.map(|body| Ending::of(body, binding, last_word))
}

// === impl Binding ===

impl Binding {
    /// Binds the request to this token.
    pub(super) fn to(&self, principal: LivePrincipal) {
        self.0.send_if_modified(|bound| match bound {
            Bound::Unknown => {
                *bound = Bound::To(principal);
                true
            }
            Bound::To(_) | Bound::Released => false,
        });
    }

    /// Releases the request from its token: it is answered even when the token ends.
    pub(super) fn release(&self) {
        self.0.send_replace(Bound::Released);
    }

    /// Returns when the token has ended; never for a request that is bound to none.
    async fn ended(self) -> PrincipalEnd {
        let mut changes = self.0.subscribe();
        loop {
            let bound = changes.borrow_and_update().clone();
            match bound {
                Bound::To(principal) => tokio::select! {
                    end = principal.ended() => return end,
                    _ = changes.changed() => {}
                },
                // The sender is `self`, so that this returns with the next change alone.
                Bound::Unknown | Bound::Released => drop(changes.changed().await),
            }
        }
    }
}

// === impl Ending ===

impl Ending {
    fn of(body: Body, binding: Binding, last_word: LastWord) -> Body {
        Body::new(Self { body, end: binding.ended().boxed(), last_word, has_ended: false })
    }

    fn last_frame(&self, end: PrincipalEnd) -> Option<Result<Frame<Bytes>, axum::Error>> {
        let refusal = Refusal::from(end);
        match &self.last_word {
            LastWord::Nothing => None,
            LastWord::Error => Some(Err(axum::Error::new(io::Error::other(refusal.problem().detail.clone())))),
            LastWord::Event(facts) => {
                facts.failed();
                // JSON has no line breaks of its own, and a problem always serializes.
                let problem = serde_json::to_string(refusal.problem()).unwrap_or_else(|_| "{}".to_owned());
                Some(Ok(Frame::data(format!("event: error\ndata: {problem}\n\n").into())))
            }
        }
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(end) = self.end.poll_unpin(context) {
            self.has_ended = true;
            // What it came from is let go of at once, however long this body is kept.
            self.body = Body::empty();
            return Poll::Ready(self.last_frame(end));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use axum::{Router, extract::Extension, middleware, response::Sse, response::sse::Event, routing::any};
    use emergent_auth::{Principal, PrincipalKeeper};
    use emergent_store::{Grants, ProjectId, TokenId};
    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn keeper() -> PrincipalKeeper {
        PrincipalKeeper::new(Principal {
            token: TokenId::generate(),
            project: ProjectId::generate(),
            name: "test".to_owned(),
            grants: Grants::on_project(Vec::new()),
        })
    }

    /// Returns handlers that never end by themselves, each bound to this token.
    fn router(keeper: &PrincipalKeeper) -> Router {
        let principal = keeper.live();
        let bound = move |Extension(binding): Extension<Binding>| {
            binding.to(principal.clone());
            binding
        };
        let (waits, events, bytes, reads, released) =
            (bound.clone(), bound.clone(), bound.clone(), bound.clone(), bound);
        let first = || stream::iter([Ok::<_, Infallible>("first")]).chain(stream::pending());
        Router::new()
            .route("/waits", any(move |binding| async move { (waits(binding), pending::<()>().await).1 }))
            .route(
                "/events",
                any(move |binding| async move {
                    events(binding);
                    Sse::new(first().map(|text| text.map(|text| Event::default().data(text))))
                }),
            )
            .route("/bytes", any(move |binding| async move { (bytes(binding), Body::from_stream(first())).1 }))
            .route(
                "/reads",
                any(move |binding, body: Body| async move {
                    reads(binding);
                    body.collect().await.err().map(|error| error.to_string()).unwrap_or_default()
                }),
            )
            .route(
                "/released",
                any(move |binding: Extension<Binding>, body: Body| async move {
                    released(binding).release();
                    body.collect().await.map(|_| "all of it").unwrap_or_default()
                }),
            )
            .layer(middleware::from_fn(bind))
    }

    fn request(path: &str, body: Body) -> Request {
        Request::post(path).body(body).unwrap()
    }

    #[tokio::test]
    async fn a_call_that_waits_is_refused_when_its_token_ends() {
        let keeper = keeper();
        let mut call = tokio::spawn(router(&keeper).oneshot(request("/waits", Body::empty())));
        assert!(futures::poll!(&mut call).is_pending());
        keeper.end(PrincipalEnd::Revoked);
        assert_eq!(call.await.unwrap().unwrap().status(), 401);
        let keeper = self::keeper();
        keeper.end(PrincipalEnd::Unconfirmed);
        let answer = router(&keeper).oneshot(request("/waits", Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 503);
    }

    #[tokio::test]
    async fn events_end_with_an_event_that_says_why_and_bytes_with_an_error() {
        let keeper = keeper();
        let mut events = router(&keeper).oneshot(request("/events", Body::empty())).await.unwrap().into_body();
        let mut bytes = router(&keeper).oneshot(request("/bytes", Body::empty())).await.unwrap().into_body();
        for body in [&mut events, &mut bytes] {
            body.frame().await.unwrap().unwrap();
        }
        keeper.end(PrincipalEnd::Revoked);
        let rest = String::from_utf8(events.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(rest.starts_with("event: error\ndata: {") && rest.contains("unauthorized"), "{rest}");
        assert!(rest.ends_with("}\n\n"), "{rest}");
        assert!(bytes.frame().await.unwrap().is_err());
        assert!(bytes.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_breaks_off_when_its_token_ends_unless_the_call_outlives_it() {
        for (path, expected) in [("/reads", 401), ("/released", 200)] {
            let keeper = keeper();
            let (sender, chunks) = tokio::sync::mpsc::channel::<Result<&str, Infallible>>(1);
            let chunks = stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
            let mut call = tokio::spawn(router(&keeper).oneshot(request(path, Body::from_stream(chunks.boxed()))));
            sender.send(Ok("first")).await.unwrap();
            assert!(futures::poll!(&mut call).is_pending());
            keeper.end(PrincipalEnd::Revoked);
            if expected == 200 {
                sender.send(Ok("last")).await.unwrap();
                drop(sender);
            }
            assert_eq!(call.await.unwrap().unwrap().status().as_u16(), expected, "{path}");
        }
    }
}
