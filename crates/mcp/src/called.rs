//! The messages of clients with limited rights: each is judged by the tool or method that it calls, and written anew.
//!
//! Parsers of JSON differ: some take `Name` for `name`, some the first and some the last of two members. Code that
//! judges a message as it reads it itself, and passes the bytes on, lets a server read them in another way. So no
//! message of such a client is passed on as it was written: it is read strictly, judged, and written anew from the
//! parts that were judged.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use http::HeaderMap;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{
    elements::Elements,
    envelope::{BATCH_LIMIT, Malformed, Message, string_of},
    headers::{contradicts, kept},
};

/// The methods that only tell what there is, or belong to the connection.
const HARMLESS: [&str; 5] = ["initialize", "ping", "server/discover", "tools/list", "logging/setLevel"];
/// The method that subscribes to changes of what its parameters name: of tools, but of resources and prompts, too.
const LISTEN: &str = "subscriptions/listen";
/// The prefix of the methods that have no id.
const NOTIFICATIONS: &str = "notifications/";
/// The members of a message.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
/// The members of a tool call's parameters, in both eras.
const CALL: [&str; 6] = ["name", "arguments", "_meta", "task", "inputResponses", "requestState"];
/// The members of a subscription's parameters.
const SUBSCRIPTION: [&str; 2] = ["notifications", "_meta"];
/// The member of a subscription's `notifications` that is about tools.
const TOOLS_CHANGED: [&str; 1] = ["toolsListChanged"];
/// The most members of a message, and of parameters that are judged: the protocol knows six.
const MOST_MEMBERS: usize = 64;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A tool, by its name.
    Tool(String),
    /// A method that lists tools, or belongs to the connection.
    Harmless,
    /// Any other method, by its name.
    Other(String),
}

/// A request, written anew from what was read of it.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The calls of the body's messages. Notifications and answers call nothing.
    pub called: Vec<Called>,
    /// The body to send on.
    pub body: Bytes,
    /// The headers to send on.
    pub headers: HeaderMap,
}

/// The reason for which a message of a client with limited rights is not sent on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// The body is no JSON-RPC message, nor a batch of them.
    #[error("a body that is no message of the protocol")]
    NoMessage,
    /// An object has a member twice.
    #[error("a message that has the member {0:?} twice")]
    Twice(String),
    /// A member is spelled almost like one that has a meaning.
    #[error("a message with the member {found:?}, which some servers take for {meant:?}")]
    Spelling {
        /// The member as it was written.
        found: String,
        /// The member that has a meaning.
        meant: &'static str,
    },
    /// A request has no id, so that its sender would see no answer.
    #[error("the method {0:?} without an id; only notifications have none")]
    NoId(String),
    /// An object has more members than any that the protocol knows.
    #[error("a message with more than {MOST_MEMBERS} members")]
    ManyMembers,
    /// A batch is longer than one may be.
    #[error("a batch of more than {BATCH_LIMIT} messages")]
    LongBatch,
    /// A header says something else than the body.
    #[error("a message whose headers Mcp-Method and Mcp-Name say something else than its body")]
    Header,
}

/// The members of an object, in order, however often each is there: the first ones, up to [`MOST_MEMBERS`].
struct Members<'a> {
    first: Vec<(String, &'a RawValue)>,
    /// Whether there are others.
    has_more: bool,
}

/// One message, written anew.
struct Part {
    called: Option<Called>,
    text: String,
}

// === impl Called ===

impl Called {
    /// Returns the call of a method with these parameters, and the parameters to send on.
    ///
    /// # Errors
    /// When servers may read the parameters in different ways.
    pub fn by(method: &str, params: Option<&RawValue>) -> Result<(Self, Option<Box<RawValue>>), Ambiguous> {
        let (called, params) = judged(method, params)?;
        let raw = |text: String| RawValue::from_string(text).map_err(|_| Ambiguous::NoMessage);
        Ok((called, params.map(raw).transpose()?))
    }
}

// === impl Rebuilt ===

impl Rebuilt {
    /// Reads a body strictly and writes it anew: members without a meaning are left out, and names are spelled in one
    /// way. The values of arguments stay as they are.
    ///
    /// # Errors
    /// When servers may read the body, or its headers, in different ways.
    pub fn of(body: &Bytes, headers: &HeaderMap) -> Result<Self, Ambiguous> {
        let whole: &RawValue = serde_json::from_slice(body).map_err(|_| Ambiguous::NoMessage)?;
        if let Some(elements) = Elements::of(whole) {
            let parts: Vec<Part> = elements.take(BATCH_LIMIT + 1).map(Part::of).collect::<Result<_, _>>()?;
            if parts.len() > BATCH_LIMIT {
                return Err(Ambiguous::LongBatch);
            }
            let text = parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(",");
            let called = parts.into_iter().filter_map(|part| part.called).collect();
            return Ok(Self { called, body: format!("[{text}]").into(), headers: kept(headers, None) });
        }
        let part = Part::of(whole)?;
        let body = Bytes::from(part.text);
        let headers = match Message::parse(body.clone()) {
            Ok(message) if contradicts(headers, &message) => return Err(Ambiguous::Header),
            Ok(message) => kept(headers, Some(&message)),
            Err(Malformed::NotJson | Malformed::NotAMessage | Malformed::Batch) => return Err(Ambiguous::NoMessage),
        };
        Ok(Self { called: part.called.into_iter().collect(), body, headers })
    }

    /// The form of a request that has no message, such as one for a stream.
    #[must_use]
    pub fn without_body(headers: &HeaderMap) -> Self {
        Self { called: Vec::new(), body: Bytes::new(), headers: kept(headers, None) }
    }
}

// === impl Part ===

impl Part {
    fn of(raw: &RawValue) -> Result<Self, Ambiguous> {
        let members = Members::of(raw)?.known(&ENVELOPE)?;
        let member = |name: &str| members.get(name).copied();
        let id = member("id").filter(|id| id.get() != "null");
        if id.is_some_and(|id| !id.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])) {
            return Err(Ambiguous::NoMessage);
        }
        match (member("method"), member("result"), member("error")) {
            (Some(method), None, None) => {
                let method = string_of(method).ok_or(Ambiguous::NoMessage)?;
                let (called, params) = judged(&method, member("params"))?;
                let params = params.map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
                let (called, id) = match id {
                    Some(id) => (Some(called), format!(r#","id":{}"#, id.get())),
                    None if method.starts_with(NOTIFICATIONS) => (None, String::new()),
                    None => return Err(Ambiguous::NoId(method)),
                };
                let method = Value::from(method);
                Ok(Self { called, text: format!(r#"{{"jsonrpc":"2.0"{id},"method":{method}{params}}}"#) })
            }
            (None, Some(result), None) => Ok(Self::answer(id, "result", result)),
            (None, None, Some(error)) => Ok(Self::answer(id, "error", error)),
            _ => Err(Ambiguous::NoMessage),
        }
    }

    /// Writes a client's answer to a server's request anew.
    fn answer(id: Option<&RawValue>, name: &str, said: &RawValue) -> Self {
        let id = id.map_or("null", RawValue::get);
        Self { called: None, text: format!(r#"{{"jsonrpc":"2.0","id":{id},"{name}":{}}}"#, said.get()) }
    }
}

/// Returns the call of a method with these parameters, and the parameters, written anew where they decide about the
/// call.
fn judged(method: &str, params: Option<&RawValue>) -> Result<(Called, Option<String>), Ambiguous> {
    if method == LISTEN {
        return Ok((Called::Harmless, Some(to_tools_alone(params)?)));
    }
    let as_they_are = params.map(|params| params.get().to_owned());
    if method != "tools/call" {
        let harmless = HARMLESS.contains(&method);
        return Ok((if harmless { Called::Harmless } else { Called::Other(method.to_owned()) }, as_they_are));
    }
    let members = Members::of(params.ok_or(Ambiguous::NoMessage)?)?.known(&CALL)?;
    let Some(name) = members.get("name").copied().and_then(string_of) else {
        return Ok((Called::Other(method.to_owned()), as_they_are));
    };
    let mut text = format!(r#"{{"name":{}"#, Value::from(name.as_str()));
    for (member, value) in members.into_iter().filter(|(member, _)| *member != "name") {
        text.push_str(&format!(r#","{member}":{}"#, value.get()));
    }
    text.push('}');
    Ok((Called::Tool(name), Some(text)))
}

/// Returns the parameters of a subscription with nothing in them but changes of tools. What else they name is left out
/// and not refused: clients name all that they know, and the acknowledgement tells them what they were given.
fn to_tools_alone(params: Option<&RawValue>) -> Result<String, Ambiguous> {
    let members = match params {
        Some(params) => Members::of(params)?.known(&SUBSCRIPTION)?,
        None => BTreeMap::new(),
    };
    let wanted = members.get("notifications").map(|wanted| Members::of(wanted)?.known(&TOOLS_CHANGED)).transpose()?;
    let tools = wanted.as_ref().and_then(|wanted| wanted.get("toolsListChanged"));
    let tools = tools.map(|tools| format!(r#""toolsListChanged":{}"#, tools.get())).unwrap_or_default();
    let meta = members.get("_meta").map(|meta| format!(r#","_meta":{}"#, meta.get())).unwrap_or_default();
    Ok(format!(r#"{{"notifications":{{{tools}}}{meta}}}"#))
}

// === impl Members ===

impl<'a> Members<'a> {
    fn of(raw: &'a RawValue) -> Result<Self, Ambiguous> {
        serde_json::from_str(raw.get()).map_err(|_| Ambiguous::NoMessage)
    }

    /// The members that have a meaning; the others are left out.
    fn known(self, known: &[&'static str]) -> Result<BTreeMap<&'static str, &'a RawValue>, Ambiguous> {
        if self.has_more {
            return Err(Ambiguous::ManyMembers);
        }
        let mut found = BTreeMap::new();
        for (name, value) in self.first {
            match known.iter().find(|known| folded(known).eq(folded(&name))) {
                Some(meant) if *meant != name => return Err(Ambiguous::Spelling { found: name, meant }),
                Some(meant) if found.insert(*meant, value).is_some() => return Err(Ambiguous::Twice(name)),
                _ => {}
            }
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MOST_MEMBERS {
                    let Some(member) = map.next_entry()? else { return Ok(Members { first, has_more: false }) };
                    first.push(member);
                }
                let mut has_more = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    has_more = true;
                }
                Ok(Members { first, has_more })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The form in which a parser that ignores case sees a name. It goes through the upper case, since `ſ` is an `S` there.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;
