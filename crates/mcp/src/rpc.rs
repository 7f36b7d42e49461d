//! The messages that a bridge writes itself.

use bytes::Bytes;
use serde_json::{Value, json};

/// Not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// No message, or not one that may be sent here.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// Parameters (or `_meta`) that are not as they should be.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// The server failed, or is gone.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// The request got no further than the transport: headers, sessions.
pub(crate) const REFUSED: i64 = -32000;
/// No answer in time; also, no such session.
pub(crate) const TIMED_OUT: i64 = -32001;
/// A header and the body say different things.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// A capability of the client is missing.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// A protocol version that the server does not speak.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// The error of a client's request that has no result.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(code: i64, message: String) -> Self {
        Self { code, message, data: None }
    }

    /// The failure as the answer to the request with this id (as it was written).
    pub(crate) fn line(&self, id: Option<&str>) -> Bytes {
        error_with(id, self.code, &self.message, self.data.as_ref())
    }
}

/// An error for the request with this id (as it was written), or for none.
pub(crate) fn error(id: Option<&str>, code: i64, message: &str) -> Bytes {
    error_with(id, code, message, None)
}

/// An error for the request with this id (as it was written), or for none, with `data`.
pub(crate) fn error_with(id: Option<&str>, code: i64, message: &str, data: Option<&Value>) -> Bytes {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".to_owned(), data.clone());
    }
    format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.unwrap_or("null")).into()
}

/// An empty result.
pub(crate) fn empty_result(id: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into()
}

/// A request; id and params are JSON.
pub(crate) fn request(id: &str, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{params}}}"#, Value::from(method)).into()
}

/// A notification; params are JSON.
pub(crate) fn notification(method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":{},"params":{params}}}"#, Value::from(method)).into()
}

/// The notification that a request (by its id at the receiver) is no longer wanted.
pub(crate) fn cancelled(id: &str, reason: &str) -> Bytes {
    notification("notifications/cancelled", &format!(r#"{{"requestId":{id},"reason":{}}}"#, Value::from(reason)))
}
