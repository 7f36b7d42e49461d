//! The first words between the bridge and a server: the bridge's own description, and the answers to `initialize` and
//! `server/discover`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    envelope::{Kind, Message},
    headers::HeaderRules,
    rpc,
    shared_child::StartError,
    versions::{LEGACY_VERSIONS, NEWEST},
};

/// The answer of a server of the older era to `initialize`.
#[derive(Debug)]
pub(crate) struct Initialized {
    pub(crate) version: String,
    pub(crate) result: Box<RawValue>,
}

/// The answer of a server of the newer era to `server/discover`, and the rules about its tools.
#[derive(Debug)]
pub(crate) struct Discovered {
    /// The versions that the server speaks.
    versions: Vec<String>,
    /// The rules about which arguments of the server's tools are repeated in headers.
    pub(crate) rules: tokio::sync::Mutex<Option<HeaderRules>>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

#[derive(Deserialize)]
struct InitializeResult {
    #[serde(rename = "protocolVersion")]
    version: String,
}

#[derive(Deserialize)]
struct DiscoverResult {
    #[serde(rename = "supportedVersions", default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Unsupported {
    error: UnsupportedError,
}

#[derive(Deserialize)]
struct UnsupportedError {
    data: UnsupportedData,
}

#[derive(Deserialize)]
struct UnsupportedData {
    supported: Vec<String>,
}

// === impl Initialized ===

impl Initialized {
    /// Reads an answer to `initialize`.
    pub(crate) fn read(message: &Message) -> Result<Self, StartError> {
        let result = result_of(&message.line).map_err(StartError::Refused)?;
        let version = serde_json::from_str::<InitializeResult>(result.get()).map(|result| result.version);
        let version = version.map_err(|_| StartError::Refused("its result has no protocolVersion".to_owned()))?;
        Ok(Self { version, result: result.to_owned() })
    }
}

// === impl Discovered ===

impl Discovered {
    pub(crate) fn of(versions: Vec<String>) -> Self {
        Self { versions, rules: tokio::sync::Mutex::default() }
    }

    /// The version that we speak ourselves.
    fn version(&self) -> &str {
        let newest =
            self.versions.iter().map(String::as_str).filter(|version| !LEGACY_VERSIONS.contains(version)).max();
        if self.versions.iter().any(|version| version == NEWEST) { NEWEST } else { newest.unwrap_or(NEWEST) }
    }

    /// The `_meta` of requests of our own.
    pub(crate) fn meta(&self) -> String {
        meta(self.version())
    }
}

/// The versions that an answer to `server/discover` names; none where the server does not know the method.
pub(crate) fn discovered_versions(answer: &Message) -> Vec<String> {
    match answer.kind {
        Kind::Error { code: rpc::UNSUPPORTED_VERSION } => {
            let said: Result<Unsupported, _> = serde_json::from_slice(&answer.line);
            said.map(|said| said.error.data.supported).unwrap_or_default()
        }
        Kind::Result => {
            let result = result_of(&answer.line).ok();
            let result = result.and_then(|result| serde_json::from_str::<DiscoverResult>(result.get()).ok());
            result.map(|result| result.versions).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The result that an answer carries, or the message of its error.
pub(crate) fn result_of(line: &Bytes) -> Result<&RawValue, String> {
    let response: Response<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match (response.result, response.error) {
        (Some(result), _) => Ok(result),
        (None, error) => {
            let error = error.unwrap_or(RawValue::NULL).get();
            Err(serde_json::from_str(error).map_or_else(|_| error.to_owned(), |ErrorBody { message }| message))
        }
    }
}

/// The bridge's `clientInfo`.
pub(crate) fn client_info() -> String {
    format!(r#"{{"name":"emergent","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

/// The `_meta` of a request of our own, as a member of `params`.
pub(crate) fn meta_member(version: &str) -> String {
    format!(r#""_meta":{{{}}}"#, meta(version))
}

/// The members of `_meta` that each request of the newer era has.
pub(crate) fn meta(version: &str) -> String {
    let client = client_info();
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientInfo":{client},"io.modelcontextprotocol/clientCapabilities":{{}}"#
    )
}
