//! One call: sending it, and what to do when the connection breaks under it.
//!
//! | when it broke | a call that is safe to repeat | any other |
//! | --- | --- | --- |
//! | before it was sent | sent again | sent again |
//! | after it was sent | sent once more | `Interrupted`, or as `changes.rs` says |
//!
//! A call never outlives its deadline, and one that never got a connection is `Unreachable`.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use emergent_budget::{Account, Limits};
use emergent_guest_proto::{ErrorCode, GuestError, Route};
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use crate::{
    GuestCallError, OpenError,
    body::{self, BodyError, RequestBody},
    connection::{Connection, Lost},
    limits::{self, STREAM},
    reconnector::Reconnector,
};

/// The time that most calls may take.
pub(crate) const USUAL: Duration = Duration::from_secs(60);
/// The time that calls may take that go through many files.
pub(crate) const THOROUGH: Duration = Duration::from_secs(120);
/// The time that a call may take that has nothing to do.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// The number of attempts to send a request, each after the first one on a new connection.
const SEND_ATTEMPTS: u32 = 4;

/// A call whose body, if any, can be sent again.
pub(crate) struct Call {
    route: Route,
    path_and_query: String,
    json: Option<Bytes>,
    headers: Vec<(HeaderName, String)>,
    repeatable: bool,
    pub(crate) within: Duration,
    answer: Limits,
}

/// The head of a good answer, and the connection that its body comes on.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Held so that the connection stays while the body is read.
    pub(crate) connection: Connection,
}

// === impl Call ===

impl Call {
    /// A call of a route without an id. Only a GET is safe to repeat, unless said so.
    pub(crate) fn to(route: Route) -> Self {
        Self::at(route, route.path().to_owned())
    }

    /// A call of a route about the thing that has this id.
    pub(crate) fn about(route: Route, id: &impl fmt::Display) -> Self {
        Self::at(route, route.path_of(id))
    }

    fn at(route: Route, path: String) -> Self {
        Self {
            route,
            path_and_query: path,
            json: None,
            headers: Vec::new(),
            repeatable: route.method() == Method::GET,
            within: USUAL,
            answer: limits::FEW,
        }
    }

    /// With the fields of `query` in the query string.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Result<Self, GuestCallError> {
        self.path_and_query = with_query(&self.path_and_query, query)?;
        Ok(self)
    }

    /// With a JSON body.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, GuestCallError> {
        self.json = Some(serde_json::to_vec(body).map_err(unwritable)?.into());
        Ok(self)
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Safe to send twice.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// With another time limit than [`USUAL`].
    pub(crate) fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// With a larger answer than one of a few fields.
    pub(crate) fn answers(mut self, answer: Limits) -> Self {
        self.answer = answer;
        self
    }

    /// Sends the call and reads a JSON answer.
    pub(crate) async fn for_json<T: DeserializeOwned>(self, reconnector: &Reconnector) -> Result<T, GuestCallError> {
        self.run(reconnector, async |answer: Answer, limits| body::json(answer.response.into_body(), limits).await)
            .await
    }

    /// Sends the call and expects an answer without contents.
    pub(crate) async fn for_nothing(self, reconnector: &Reconnector) -> Result<(), GuestCallError> {
        self.run(reconnector, async |answer: Answer, limits| {
            body::collect(answer.response.into_body(), limits).await.map(drop)
        })
        .await
    }

    /// Sends the call and leaves the answer's body to be read.
    pub(crate) async fn for_answer(self, reconnector: &Reconnector) -> Result<Answer, GuestCallError> {
        self.run(reconnector, async |answer: Answer, _| Ok(answer)).await
    }

    /// Sends the call on this connection, and reads a JSON answer; one without contents is null. Not bounded in time,
    /// and
    /// `Unreachable` when it was not sent.
    pub(crate) async fn once<T: DeserializeOwned>(&self, connection: &Connection) -> Result<T, GuestCallError> {
        let response = connection.send(self.request().map_err(unwritable)?).await?;
        let answer = accepted(Answer { response, connection: connection.clone() }).await?;
        let bytes = body::collect(answer.response.into_body(), self.answer).await?;
        let json = if bytes.is_empty() { &b"null"[..] } else { &bytes };
        Ok(serde_json::from_slice(json).map_err(BodyError::NotJson)?)
    }

    async fn run<T>(
        self,
        reconnector: &Reconnector,
        read: impl AsyncFn(Answer, Limits) -> Result<T, BodyError>,
    ) -> Result<T, GuestCallError> {
        let deadline = Instant::now() + self.within;
        let mut repeats = u32::from(self.repeatable);
        loop {
            let attempt = async {
                let answer = send(reconnector, deadline, || self.request()).await?;
                read(accepted(answer).await?, self.answer).await.map_err(GuestCallError::from)
            };
            match timeout_at(deadline, attempt).await {
                Ok(Err(GuestCallError::Interrupted { .. })) if repeats > 0 => repeats -= 1,
                Ok(ended) => return ended,
                Err(_) => return Err(GuestCallError::timeout(self.within)),
            }
        }
    }

    fn request(&self) -> Result<Request<RequestBody>, http::Error> {
        let mut request = body::request(self.route, &self.path_and_query);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match &self.json {
            Some(json) => request.header(header::CONTENT_TYPE, "application/json").body(body::full(json.clone())),
            None => request.body(body::empty()),
        }
    }
}

/// Makes room for a stream of bytes that whoever asked may read slowly; the stream keeps what this answers.
pub(crate) async fn room_for_stream() -> Result<Option<Account>, GuestCallError> {
    let Some(account) = Account::current() else { return Ok(None) };
    let room = account.another();
    room.hold(STREAM).await.map_err(GuestCallError::Exhausted)?;
    Ok(Some(room))
}

/// Sends what `request` makes, on a new connection as long as it could not be sent on the last.
pub(crate) async fn send(
    reconnector: &Reconnector,
    deadline: Instant,
    request: impl Fn() -> Result<Request<RequestBody>, http::Error>,
) -> Result<Answer, GuestCallError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let connection = reconnector.connection(deadline).await.map_err(GuestCallError::Unreachable)?;
        match connection.send(request().map_err(unwritable)?).await {
            Ok(response) => return Ok(Answer { response, connection }),
            Err(Lost::Unsent) if attempts < SEND_ATTEMPTS => connection.cut(),
            Err(lost) => return Err(lost.into()),
        }
    }
}

/// The answer if it is a good one, else the guest's error.
pub(crate) async fn accepted(answer: Answer) -> Result<Answer, GuestCallError> {
    let status = answer.response.status();
    if status.is_success() {
        return Ok(answer);
    }
    match body::json::<GuestError>(answer.response.into_body(), limits::ERROR).await {
        Ok(error) => Err(GuestCallError::Refused(error)),
        Err(error @ (BodyError::Lost(_) | BodyError::Exhausted(_))) => Err(error.into()),
        Err(_) => Err(GuestCallError::Nonsense(format!("status {status} without an error that can be read"))),
    }
}

/// A path with the fields of `query` after it.
pub(crate) fn with_query(path: &str, query: &impl Serialize) -> Result<String, GuestCallError> {
    let query = serde_urlencoded::to_string(query).map_err(unwritable)?;
    Ok(format!("{path}?{query}"))
}

/// A request that cannot be written was never sent: what it asks for cannot be said.
pub(crate) fn unwritable(error: impl fmt::Display) -> GuestCallError {
    GuestCallError::Refused(GuestError::new(ErrorCode::InvalidRequest, format!("the request cannot be sent: {error}")))
}

/// The status of a good answer must be one of these.
pub(crate) fn expect_status(answer: &Answer, allowed: &[StatusCode]) -> Result<(), GuestCallError> {
    let status = answer.response.status();
    if allowed.contains(&status) {
        Ok(())
    } else {
        Err(GuestCallError::Nonsense(format!("unexpected status {status}")))
    }
}

impl From<Lost> for GuestCallError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent => Self::Unreachable(Arc::new(OpenError::Closed)),
            Lost::Sent(source) => Self::lost(source),
        }
    }
}

impl From<BodyError> for GuestCallError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Lost(source) => Self::lost(source),
            BodyError::Exhausted(exhausted) => Self::Exhausted(exhausted),
            BodyError::TooLarge(_) | BodyError::NotJson(_) => Self::Nonsense(error.to_string()),
        }
    }
}
