//! What a request's body calls, for those who decide who may call what.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::envelope::{Kind, Malformed, Message, string_of};

/// The methods that only tell what there is, or belong to the connection.
const HARMLESS: [&str; 6] =
    ["initialize", "ping", "server/discover", "tools/list", "logging/setLevel", "subscriptions/listen"];

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A tool, by its name.
    Tool(String),
    /// What tells of tools, or belongs to the connection.
    Harmless,
    /// Anything else that a server has.
    Other(String),
}

// === impl Called ===

impl Called {
    /// What a method with these parameters calls.
    #[must_use]
    pub fn by(method: &str, params: Option<&RawValue>) -> Self {
        let request = crate::rpc::request("0", method, params.map_or("{}", RawValue::get));
        // Parameters that cannot be read call no tool that anybody has been allowed.
        Message::parse(request).map_or_else(|_| Self::Other(method.to_owned()), |message| Self::of(&message, method))
    }

    /// What the messages of a body call; `None` where it cannot be read. Notifications and answers call nothing.
    #[must_use]
    pub fn in_body(body: &Bytes) -> Option<Vec<Self>> {
        let messages = match Message::parse(body.clone()) {
            Ok(message) => vec![message],
            Err(Malformed::Batch) => Message::parse_batch(body).ok()?,
            Err(Malformed::NotJson | Malformed::NotAMessage) => return None,
        };
        let calls = messages.iter().filter_map(|message| match &message.kind {
            Kind::Request(method) => Some(Self::of(message, method)),
            Kind::Notification(_) | Kind::Result | Kind::Error { .. } => None,
        });
        Some(calls.collect())
    }

    fn of(message: &Message, method: &str) -> Self {
        match (method, message.params().name.and_then(string_of)) {
            ("tools/call", Some(name)) => Self::Tool(name),
            _ if HARMLESS.contains(&method) => Self::Harmless,
            _ => Self::Other(method.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(body: &'static str) -> Option<Vec<Called>> {
        Called::in_body(&Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn calls_are_found_however_they_are_written() {
        let tool = |name: &str| Some(vec![Called::Tool(name.to_owned())]);
        let escaped = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"r\u006d"}}"#;
        assert_eq!(called(escaped), tool("rm"));
        assert_eq!(called(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), Some(Vec::new()));
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"resources/list"}]"#;
        assert_eq!(called(batch), Some(vec![Called::Harmless, Called::Other("resources/list".to_owned())]));
    }

    #[test]
    fn what_says_two_things_at_once_is_no_tool_that_anybody_may_call() {
        let other = Some(vec![Called::Other("tools/call".to_owned())]);
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","name":"rm"}}"#;
        assert_eq!(called(twice), other);
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"rm"}}"#;
        assert_eq!(called(twice), None);
        assert_eq!(called("not json"), None);
    }
}
