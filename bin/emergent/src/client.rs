//! The client of the REST API that the commands share.

mod error;
mod events;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use emergent_api::http::problem::ProblemKind;
use futures::Stream;
use reqwest::{Certificate, Method, RequestBuilder, Response, Url, header, redirect};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use error::ClientError;
pub(crate) use events::{Event, EventReader};

use self::error::is_no_tls;
use crate::{
    cli::ClientArgs,
    config::{DEFAULT_SERVER, bootstrap_token_file, default_data_dir, server_url_file},
};

/// The largest body of an answer that is read whole: more than any answer of a server has.
const LARGEST_BODY: usize = 64 << 20;
/// The most pages of a list that are asked for.
pub(crate) const MOST_PAGES: usize = 10_000;

/// A client of one server, with one token.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<String>,
    /// The file that the token was looked for in where none was given.
    token_file: PathBuf,
    session: Option<uuid::Uuid>,
}

impl Client {
    /// Makes a client for the server that the command line names.
    pub(crate) fn new(arguments: &ClientArgs) -> Result<Self, ClientError> {
        let data_dir = arguments.data_dir.clone().unwrap_or_else(default_data_dir);
        let kept = |file: PathBuf| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
        let address = arguments.server.clone().or_else(|| kept(server_url_file(&data_dir)));
        let address = address.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let server: Url = address.parse().map_err(|_| ClientError::BadServer(address.clone()))?;
        if !matches!(server.scheme(), "http" | "https") || server.host().is_none() {
            return Err(ClientError::BadServer(address));
        }
        let given = arguments.token.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned);
        let token_file = bootstrap_token_file(&data_dir);
        let token = given.or_else(|| kept(token_file.clone())).filter(|token| !token.is_empty());
        // A server redirects nobody: whoever answers so would get the body of the request sent elsewhere. Over HTTP/2 an
        // upload would be as fast as the server's small windows let it be.
        let mut http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .http1_only()
            .user_agent(concat!("emergent/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = arguments.ca.as_deref().filter(|file| !file.is_empty()) {
            http = http.tls_certs_merge(authorities(Path::new(file))?);
        }
        let http = http.build().map_err(ClientError::Setup)?;
        Ok(Self { http, server, token, token_file, session: arguments.session })
    }

    /// Returns the server's address, without a slash at its end.
    pub(crate) fn address(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// Returns the token that is sent. A secret.
    pub(crate) fn token(&self) -> Result<&str, ClientError> {
        self.token.as_deref().ok_or_else(|| self.no_token())
    }

    /// Sends GET; returns the JSON of the answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(self.request(Method::GET, path)?).await
    }

    /// Sends GET with a query; returns the JSON of the answer.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.answer(self.request(Method::GET, path)?.query(query)).await
    }

    /// Sends GET with a query for one page of a list after the other; returns the items of all. `of_page` returns the
    /// items of a page, and the cursor of the next one.
    pub(crate) async fn get_all<P: DeserializeOwned, T>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        of_page: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = query.to_vec();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let (more, next) = of_page(self.get_with(path, &query).await?);
            items.extend(more);
            if next.is_none() {
                return Ok(items);
            }
            cursor = next;
        }
        Err(ClientError::EndlessList)
    }

    /// Sends POST with JSON; returns the JSON of the answer.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.answer(self.request(Method::POST, path)?.json(body)).await
    }

    /// Sends PUT with JSON; returns the JSON of the answer.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.answer(self.request(Method::PUT, path)?.json(body)).await
    }

    /// Sends POST without a body; returns the JSON of the answer.
    pub(crate) async fn post_nothing<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(self.request(Method::POST, path)?).await
    }

    /// Sends DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path)?).await.map(drop)
    }

    /// Sends DELETE; returns the JSON of the answer.
    pub(crate) async fn delete_answered<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(self.request(Method::DELETE, path)?).await
    }

    /// Sends a stream of bytes to a path.
    pub(crate) async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let request = self.request(method, path)?.query(query).body(reqwest::Body::wrap_stream(bytes));
        self.send(request).await.map(drop)
    }

    /// Sends GET; returns the answer, whose body is bytes.
    pub(crate) async fn get_bytes(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, ClientError> {
        self.send(self.request(Method::GET, path)?.query(query)).await
    }

    /// Sends GET; returns the events of the answer, from the one after this id, if it is given.
    pub(crate) async fn get_events(
        &self,
        path: &str,
        query: &[(&str, &str)],
        after: Option<&str>,
    ) -> Result<EventReader, ClientError> {
        let mut request = self.request(Method::GET, path)?.query(query).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        Ok(EventReader::new(self.send(request).await?))
    }

    /// Begins a request, for the caller to complete.
    pub(crate) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let url = self.server.join(path).map_err(|_| ClientError::BadServer(self.server.to_string()))?;
        let mut request = self.http.request(method, url);
        if let Some(session) = self.session {
            request = request.header("emergent-session", session.to_string());
        }
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends a request and reads its answer as JSON.
    pub(crate) async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let bytes = whole(response).await?;
        serde_json::from_slice(&bytes).map_err(ClientError::Nonsense)
    }

    /// Sends a request; an answer without success is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.send_any(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = whole(response).await.unwrap_or_default();
        let error = ClientError::of_answer(status, &body);
        let needs_token = self.token.is_none() && error.is_problem(ProblemKind::Unauthorized);
        Err(if needs_token { self.no_token() } else { error })
    }

    /// Sends a request; returns any answer, with or without success. An answer that leads elsewhere is an error.
    pub(crate) async fn send_any(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.failed(source))?;
        match response.headers().get(header::LOCATION) {
            Some(to) if response.status().is_redirection() => {
                let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
                Err(ClientError::Redirected { server: self.address().to_owned(), to })
            }
            _ => Ok(response),
        }
    }

    fn failed(&self, source: reqwest::Error) -> ClientError {
        let server = self.address().to_owned();
        if is_no_tls(&source) { ClientError::PlainHttp { server } } else { ClientError::Unreachable { server, source } }
    }

    /// Says where a token was looked for.
    fn no_token(&self) -> ClientError {
        let file = self.token_file.display();
        let kept = match std::fs::File::open(&self.token_file) {
            Ok(_) => format!("{file} has none"),
            Err(error) => format!("{file} cannot be read ({error})"),
        };
        let looked = format!(
            "--token and EMERGENT_TOKEN are not set, and {kept}\n  \
             on the server's machine, run this as the server's user, with EMERGENT_DATA_DIR as the server has it; \
             elsewhere, set EMERGENT_TOKEN to a token that `emergent token create` has made there"
        );
        ClientError::NoToken { server: self.address().to_owned(), looked }
    }
}

/// Reads the body of an answer that is no stream and no file. What answers may not be a server, and never end.
pub(crate) async fn whole(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST_BODY => return Err(ClientError::EndlessAnswer),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(source) => {
                return Err(ClientError::Unreachable { server: response.url().origin().ascii_serialization(), source });
            }
        }
    }
}

/// Reads the certificates in a PEM file.
fn authorities(file: &Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(file)
        .map_err(|source| ClientError::Local { what: format!("{} cannot be read", file.display()), source })?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() { Err(ClientError::NoCertificates(file.to_owned())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, body::Body, http::StatusCode, response::Redirect, routing};
    use serde_json::{Value, json};

    use super::*;

    /// A client of a server that has these routes and runs as long as the test.
    async fn client_of(routes: Router) -> Client {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Some(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let token = Some("token".to_owned());
        Client::new(&ClientArgs { server, token, ca: None, session: None, data_dir: None, json: false }).unwrap()
    }

    fn endless() -> Body {
        Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536]))))
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read_to_its_end() {
        let routes = Router::new()
            .route("/list", routing::get(async || endless()))
            .route("/problem", routing::get(async || (StatusCode::BAD_REQUEST, endless())));
        let client = client_of(routes).await;
        let error = client.get::<Value>("/list").await.unwrap_err();
        assert!(error.to_string().contains("more than 64 MiB"), "{error}");
        let error = client.get::<Value>("/problem").await.unwrap_err();
        assert!(matches!(error, ClientError::NotOurs { status: 400 }), "{error}");
    }

    #[tokio::test]
    async fn a_list_whose_pages_never_end_is_given_up() {
        let page = async || Json(json!({ "items": [1], "next_cursor": "again" }));
        let client = client_of(Router::new().route("/list", routing::get(page))).await;
        let of_page = |page: Value| (vec![page["items"][0].clone()], page["next_cursor"].as_str().map(str::to_owned));
        let error = client.get_all("/list", &[("limit", "1")], of_page).await.unwrap_err();
        assert!(error.to_string().contains("10000 pages"), "{error}");
    }

    #[tokio::test]
    async fn a_request_is_not_sent_to_where_an_answer_leads() {
        let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
        let elsewhere = client_of(Router::new().fallback(async move |body: String| drop(sent.send(body)))).await;
        let to = format!("{}/elsewhere", elsewhere.address());
        let leads = {
            let to = to.clone();
            async move || Redirect::temporary(&to)
        };
        let client = client_of(Router::new().fallback(leads)).await;
        let error = client.post::<Value>("/secrets", &json!({ "value": "secret" })).await.unwrap_err();
        assert!(error.to_string().contains(&to), "{error}");
        let request = client.request(Method::GET, "/mcp").unwrap();
        assert!(matches!(client.send_any(request).await, Err(ClientError::Redirected { .. })));
        assert!(received.try_recv().is_err(), "nothing was sent there");
    }
}
