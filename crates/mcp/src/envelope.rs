//! The envelope of a JSON-RPC message, read without touching what is inside.
//!
//! A message stays the bytes that its sender wrote. The parts that have to change on the way (an id, a progress token,
//! a subscription's id) are cut out and replaced by position, so that everything else, known to us or not, arrives as
//! it was sent: field order, spelling of numbers, vendor keys.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::elements::Elements;

/// The longest id, method or progress token, in bytes as it is written: each is kept until its request is answered.
pub(crate) const LONGEST_NAME: usize = 1024;

/// The most values of a client's message, and of what is taken apart of a server's, as [`emergent_budget::Limits`]
/// counts them: each may become a part of a tree.
pub(crate) const MOST_VALUES: usize = 50_000;

/// The most messages in one batch of a client.
pub(crate) const BATCH_LIMIT: usize = 100;

/// One message and the places in it that matter.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The message on one line, without its end.
    pub(crate) line: Bytes,
    pub(crate) kind: Kind,
    /// The token of `id`.
    pub(crate) id: Option<Range<usize>>,
    pub(crate) params: Option<Range<usize>>,
}

/// The kind of a message, by the members that it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Request(Box<str>),
    Notification(Box<str>),
    Result,
    Error { code: i64 },
}

/// The common form of all spellings of one id (or token). Peers may write a number back differently (`1` as `1.0`), and
/// those that keep numbers as floats round large ones, so numbers are compared as floats.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum IdKey {
    Text(Box<str>),
    Number(u64),
    /// A number beyond what a float holds: as it was written.
    Raw(Box<str>),
}

/// The reason for which some bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Malformed {
    /// Not JSON (or not UTF-8).
    NotJson,
    /// JSON, but an array.
    Batch,
    /// JSON, but not a message.
    NotAMessage,
}

/// The members of `params` that a bridge looks at; all optional and of any type.
#[derive(Default)]
pub(crate) struct Params<'a> {
    pub(crate) meta: Option<&'a RawValue>,
    pub(crate) progress_token: Option<&'a RawValue>,
    pub(crate) request_id: Option<&'a RawValue>,
    pub(crate) name: Option<&'a RawValue>,
    pub(crate) uri: Option<&'a RawValue>,
    pub(crate) arguments: Option<&'a RawValue>,
}

/// The members of `_meta` that a bridge looks at.
#[derive(Default)]
pub(crate) struct Meta<'a> {
    pub(crate) progress_token: Option<&'a RawValue>,
    pub(crate) version: Option<&'a RawValue>,
    pub(crate) capabilities: Option<&'a RawValue>,
    pub(crate) log_level: Option<&'a RawValue>,
    pub(crate) subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawParams<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawMeta<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: f64,
}

// === impl Message ===

impl Message {
    /// Reads one message. Line ends inside it, which JSON allows between tokens only, become blanks, because a line
    /// is the frame on stdio and in an event.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let line = on_one_line(bytes);
        match line.first() {
            Some(b'{') => {}
            Some(b'[') => {
                let array: Result<&RawValue, _> = serde_json::from_slice(&line);
                return Err(if array.is_ok() { Malformed::Batch } else { Malformed::NotJson });
            }
            _ => {
                let any: Result<&RawValue, _> = serde_json::from_slice(&line);
                return Err(if any.is_ok() { Malformed::NotAMessage } else { Malformed::NotJson });
            }
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&line)
            .map_err(|error| if error.is_data() { Malformed::NotAMessage } else { Malformed::NotJson })?;
        let id = envelope.id.filter(|id| id.get() != "null");
        if id.is_some_and(|id| !matches!(id.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))) {
            return Err(Malformed::NotAMessage);
        }
        let kind = match (&envelope.method, id, envelope.result, envelope.error) {
            (Some(method), Some(_), None, None) => Kind::Request(method.as_ref().into()),
            (Some(method), None, None, None) => Kind::Notification(method.as_ref().into()),
            (None, Some(_), Some(_), None) => Kind::Result,
            (None, _, None, Some(error)) => {
                let code = serde_json::from_str::<ErrorBody>(error.get()).map_or(0.0, |error| error.code);
                Kind::Error { code: whole(code) }
            }
            _ => return Err(Malformed::NotAMessage),
        };
        let (id, params) = (id.and_then(|id| place(&line, id)), envelope.params.and_then(|p| place(&line, p)));
        Ok(Self { kind, id, params, line: line.clone() })
    }

    /// The messages of a [batch](Malformed::Batch), one after the other; each as [`parse`](Self::parse) sees it.
    pub(crate) fn batch(bytes: &Bytes) -> impl Iterator<Item = Result<Self, Malformed>> {
        let whole: Option<&RawValue> = serde_json::from_slice(bytes).ok();
        let parts = whole.and_then(Elements::of).into_iter().flatten();
        parts.map(|part| Self::parse(part_of(bytes, part.get().as_bytes())))
    }

    /// The id as it was written.
    pub(crate) fn raw_id(&self) -> Option<&str> {
        self.id.clone().and_then(|place| text(&self.line, place))
    }

    /// Whether the id, the method or the progress token is longer than [`LONGEST_NAME`].
    pub(crate) fn has_long_name(&self) -> bool {
        let method = match &self.kind {
            Kind::Request(method) | Kind::Notification(method) => method.len(),
            Kind::Result | Kind::Error { .. } => 0,
        };
        let token = || self.params().meta().and_then(|meta| meta.progress_token).map_or(0, |token| token.get().len());
        self.has_long_id() || method > LONGEST_NAME || token() > LONGEST_NAME
    }

    /// Whether the id is longer than [`LONGEST_NAME`].
    pub(crate) fn has_long_id(&self) -> bool {
        self.id.as_ref().is_some_and(|id| id.len() > LONGEST_NAME)
    }

    /// The id's key.
    pub(crate) fn key(&self) -> Option<IdKey> {
        self.raw_id().map(IdKey::of)
    }

    /// The parameters as they were written.
    pub(crate) fn params_text(&self) -> Option<&str> {
        self.params.clone().and_then(|place| text(&self.line, place))
    }

    /// The members of `params`; none where `params` is no object.
    pub(crate) fn params(&self) -> Params<'_> {
        self.params_text()
            .and_then(|raw| serde_json::from_str::<RawParams<'_>>(raw).ok())
            .map(|raw| Params {
                meta: raw.meta,
                progress_token: raw.progress_token,
                request_id: raw.request_id,
                name: raw.name,
                uri: raw.uri,
                arguments: raw.arguments,
            })
            .unwrap_or_default()
    }

    /// The place of this part in the message.
    pub(crate) fn place(&self, part: &RawValue) -> Option<Range<usize>> {
        place(&self.line, part)
    }

    /// The message with these places replaced; those that are absent stay out of it. They may not overlap.
    pub(crate) fn with(&self, edits: impl IntoIterator<Item = (Option<Range<usize>>, String)>) -> Bytes {
        let mut edits: Vec<_> = edits.into_iter().filter_map(|(place, new)| place.map(|place| (place, new))).collect();
        if edits.is_empty() {
            return self.line.clone();
        }
        edits.sort_by_key(|(place, _)| place.start);
        let mut spliced = Vec::with_capacity(self.line.len() + 64);
        let mut at = 0;
        for (place, new) in edits {
            spliced.extend_from_slice(self.line.get(at..place.start).unwrap_or_default());
            spliced.extend_from_slice(new.as_bytes());
            at = place.end;
        }
        spliced.extend_from_slice(self.line.get(at..).unwrap_or_default());
        spliced.into()
    }
}

// === impl Params ===

impl<'a> Params<'a> {
    /// The members of `_meta`; `None` where it is absent or no object.
    pub(crate) fn meta(&self) -> Option<Meta<'a>> {
        let raw: RawMeta<'a> = serde_json::from_str(self.meta?.get()).ok()?;
        Some(Meta {
            progress_token: raw.progress_token,
            version: raw.version,
            capabilities: raw.capabilities,
            log_level: raw.log_level,
            subscription: raw.subscription,
        })
    }
}

// === impl IdKey ===

impl IdKey {
    /// The key of an id as it was written.
    pub(crate) fn of(raw: &str) -> Self {
        if raw.starts_with('"') {
            return serde_json::from_str::<Box<str>>(raw).map_or_else(|_| Self::Raw(raw.into()), Self::Text);
        }
        match raw.parse::<f64>() {
            // Adding zero makes -0 the same as 0.
            Ok(number) if number.is_finite() => Self::Number((number + 0.0).to_bits()),
            _ => Self::Raw(raw.into()),
        }
    }

    /// The id in a form that can be written.
    pub(crate) fn written(&self) -> String {
        match self {
            Self::Text(text) => serde_json::Value::from(text.as_ref()).to_string(),
            Self::Number(bits) => f64::from_bits(*bits).to_string(),
            Self::Raw(raw) => raw.to_string(),
        }
    }

    /// The key of the number that this text spells, for peers that quote ids which were sent without quotes.
    pub(crate) fn unquoted(&self) -> Option<Self> {
        match self {
            Self::Text(text) => text.parse::<f64>().is_ok().then(|| Self::of(text)),
            _ => None,
        }
    }
}

/// The string that this JSON is, or `None` where it is something else.
pub(crate) fn string_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A part of these bytes, in memory of its own where it is less than half of them: whoever keeps a part keeps all of
/// the memory that it is in.
pub(crate) fn part_of(bytes: &Bytes, part: &[u8]) -> Bytes {
    if part.len() < bytes.len() / 2 { Bytes::copy_from_slice(part) } else { bytes.slice_ref(part) }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn on_one_line(bytes: Bytes) -> Bytes {
    let bytes = bytes.slice_ref(bytes.trim_ascii());
    if memchr::memchr2(b'\n', b'\r', &bytes).is_none() {
        return bytes;
    }
    bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// The place in a line of a part that was borrowed from it.
fn place(line: &[u8], part: &RawValue) -> Option<Range<usize>> {
    let start = (part.get().as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    let place = start..start + part.get().len();
    (place.end <= line.len()).then_some(place)
}

fn text(line: &[u8], place: Range<usize>) -> Option<&str> {
    std::str::from_utf8(line.get(place)?).ok()
}

#[expect(clippy::cast_possible_truncation, reason = "a code outside of i64 is none that is known: it saturates")]
fn whole(code: f64) -> i64 {
    code as i64
}

#[cfg(test)]
mod tests;
