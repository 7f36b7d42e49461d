//! The rule that a request's headers say the same as its body.
//!
//! `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` let proxies route without reading bodies; a request whose headers say
//! something else would pass a proxy as one thing and reach the server as another.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use emergent_budget::{SMALL, values_in};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use crate::{
    answer,
    elements::Elements,
    envelope::{Kind, LONGEST_NAME, MOST_VALUES, Message, string_of},
    rpc,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The prefix of the headers that repeat arguments.
const ARGUMENT: &str = "mcp-param-";

/// The headers that a request of a client with limited rights keeps, whatever it asks for. Any other stays behind: some
/// servers, and frameworks that they are made with, take a header for a part of the request, such as
/// `X-HTTP-Method-Override` and `X-Original-URL`.
const KEPT: [HeaderName; 7] = [
    header::ACCEPT,
    header::HOST,
    answer::LAST_EVENT,
    answer::SESSION,
    answer::VERSION,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The most pages of tools that are looked at.
pub(crate) const PAGES: usize = 50;

/// The time for which the tools' rules about headers are believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// How deep arguments are looked into.
const DEPTH: usize = 8;

/// The most rules of one tool; their headers would hardly fit into the head of a request.
const MOST_RULES: usize = 64;

/// The most bytes of a server's rules. Tools that would have more have none: the server checks their headers itself.
const RULES_LIMIT: usize = 1 << 20;

/// The fault in the headers, or in the `_meta`, of a request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("params._meta lacks {0}")]
    Meta(&'static str),
    #[error("the header {header} is missing")]
    Missing { header: String },
    #[error("the header {header} does not say what the body says")]
    Differs { header: String },
    #[error("the header {header} has a value that cannot be read")]
    Unreadable { header: String },
}

/// The arguments of tools that a client repeats in headers, as the tools' schemas say (`x-mcp-header`).
#[derive(Debug)]
pub struct HeaderRules {
    asked: Instant,
    tools: HashMap<String, Vec<Rule>>,
    /// The bytes that the rules take.
    size: usize,
}

#[derive(Debug)]
struct Rule {
    header: HeaderName,
    path: Vec<String>,
}

#[derive(Deserialize)]
struct ToolsResult<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "nextCursor")]
    cursor: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    name: String,
    #[serde(borrow, rename = "inputSchema", default)]
    schema: Option<&'a RawValue>,
}

// === impl Mismatch ===

impl Mismatch {
    pub(crate) fn code(&self) -> i64 {
        match self {
            Self::Meta(_) => rpc::INVALID_PARAMS,
            _ => rpc::HEADER_MISMATCH,
        }
    }
}

// === impl HeaderRules ===

impl Default for HeaderRules {
    fn default() -> Self {
        Self { asked: Instant::now(), tools: HashMap::new(), size: 0 }
    }
}

impl HeaderRules {
    pub(crate) fn is_old(&self) -> bool {
        self.asked.elapsed() > BELIEVED
    }

    /// Adds the rules in the result of one `tools/list`; returns the cursor of the next page, as JSON, if there is one.
    pub fn add(&mut self, result: &RawValue) -> Option<String> {
        let page: ToolsResult<'_> = serde_json::from_str(result.get()).ok()?;
        for tool in page.tools.and_then(Elements::of).into_iter().flatten() {
            let Ok(Tool { name, schema: Some(schema) }) = serde_json::from_str(tool.get()) else { continue };
            if values_in(schema.get().as_bytes()) > MOST_VALUES {
                continue;
            }
            let mut rules = Vec::new();
            let schema: Value = serde_json::from_str(schema.get()).unwrap_or_default();
            collect(&schema, &mut Vec::new(), &mut rules);
            let size = name.len() + rules.iter().map(Rule::size).sum::<usize>();
            if !rules.is_empty() && self.size + size <= RULES_LIMIT {
                self.size += size;
                self.tools.insert(name, rules);
            }
        }
        page.cursor.map(|cursor| cursor.get().to_owned()).filter(|cursor| cursor.len() <= SMALL)
    }

    /// The headers that repeat the arguments of a call.
    #[must_use]
    pub fn headers(&self, tool: &str, arguments: Option<&RawValue>) -> Vec<(HeaderName, HeaderValue)> {
        let Some(rules) = self.tools.get(tool) else { return Vec::new() };
        let arguments: Value =
            arguments.and_then(|arguments| serde_json::from_str(arguments.get()).ok()).unwrap_or_default();
        let repeated = rules.iter().filter_map(|rule| {
            let text = match rule.path.iter().try_fold(&arguments, |value, name| value.get(name))? {
                Value::String(text) => text.clone(),
                value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
                // The protocol has no header for these, and a server says so.
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((rule.header.clone(), header_value(&text)))
        });
        repeated.collect()
    }

    /// Checks that the headers of a call repeat its arguments.
    pub(crate) fn check(&self, headers: &HeaderMap, tool: &str, arguments: Option<&RawValue>) -> Result<(), Mismatch> {
        let Some(rules) = self.tools.get(tool) else { return Ok(()) };
        let arguments: Value =
            arguments.and_then(|arguments| serde_json::from_str(arguments.get()).ok()).unwrap_or_default();
        for rule in rules {
            let value = rule.path.iter().try_fold(&arguments, |value, name| value.get(name));
            let header = decoded(headers, &rule.header)?;
            let name = || rule.header.to_string();
            match (value.filter(|value| !value.is_null()), header) {
                (None, None) => {}
                (Some(_), None) => return Err(Mismatch::Missing { header: name() }),
                (Some(value), Some(header)) if same(value, &header) => {}
                (_, Some(_)) => return Err(Mismatch::Differs { header: name() }),
            }
        }
        Ok(())
    }
}

// === impl Rule ===

impl Rule {
    /// The bytes that the rule takes.
    fn size(&self) -> usize {
        let path = self.path.iter().map(|name| size_of::<String>() + name.len()).sum::<usize>();
        size_of::<Self>() + self.header.as_str().len() + path
    }
}

/// A text as the protocol writes it into a header: as it is, or as `=?base64?…?=` where no header could hold it.
#[must_use]
pub fn header_value(text: &str) -> HeaderValue {
    let edges = [text.bytes().next(), text.bytes().last()];
    let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && !edges.contains(&Some(b' '))
        && !text.starts_with("=?base64?");
    let written = if plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) };
    HeaderValue::try_from(written).unwrap_or(HeaderValue::from_static(""))
}

/// Checks the headers that every request has.
pub(crate) fn check(headers: &HeaderMap, message: &Message, method: &str) -> Result<(), Mismatch> {
    let params = message.params();
    let meta = params.meta().ok_or(Mismatch::Meta("io.modelcontextprotocol/protocolVersion"))?;
    let version = meta.version.and_then(string_of);
    let version = version.ok_or(Mismatch::Meta("io.modelcontextprotocol/protocolVersion"))?;
    if !meta.capabilities.is_some_and(|capabilities| capabilities.get().starts_with('{')) {
        return Err(Mismatch::Meta("io.modelcontextprotocol/clientCapabilities"));
    }
    compare(headers, &answer::VERSION, &version)?;
    check_method(headers, method)?;
    let named = match method {
        "tools/call" | "prompts/get" => params.name,
        "resources/read" => params.uri,
        _ => return Ok(()),
    };
    match named.and_then(string_of) {
        Some(name) => compare(headers, &NAME, &name),
        // The server says what is wrong with such parameters.
        None => Ok(()),
    }
}

/// Whether a header that repeats the method or the name of a message is there and says something else.
pub(crate) fn contradicts(headers: &HeaderMap, message: &Message) -> bool {
    repeated(message).into_iter().any(|(header, said)| match decoded(headers, &header) {
        Ok(None) => false,
        Ok(repeated) => repeated != said,
        Err(_) => true,
    })
}

/// The headers to send on with the message of a client with limited rights; `None` stands for a batch or an empty body,
/// which no header can repeat. Those that repeat the message are written anew, each if it was there.
pub(crate) fn kept(headers: &HeaderMap, message: Option<&Message>) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in KEPT {
        // What a client accepts may be in several headers. Of others a server might take another one than we do.
        let most = if name == header::ACCEPT { usize::MAX } else { 1 };
        for value in headers.get_all(&name).iter().take(most) {
            kept.append(&name, value.clone());
        }
    }
    let Some(message) = message else { return kept };
    for (name, said) in repeated(message) {
        if let Some(said) = said.filter(|_| headers.contains_key(&name)) {
            kept.insert(name, header_value(&said));
        }
    }
    if matches!(&message.kind, Kind::Request(method) if method.as_ref() == "tools/call") {
        // The arguments are the client's to choose, and a server refuses headers that do not repeat them.
        let arguments = headers.iter().filter(|(name, _)| name.as_str().starts_with(ARGUMENT));
        kept.extend(arguments.map(|(name, value)| (name.clone(), value.clone())));
    }
    kept
}

/// The method and the name in a message, each with the header that repeats it.
fn repeated(message: &Message) -> [(HeaderName, Option<String>); 2] {
    let method = match &message.kind {
        Kind::Request(method) | Kind::Notification(method) => Some(method.to_string()),
        Kind::Result | Kind::Error { .. } => None,
    };
    let params = message.params();
    [(METHOD, method), (NAME, params.name.or(params.uri).and_then(string_of))]
}

/// Checks the one header that notifications have, too.
pub(crate) fn check_method(headers: &HeaderMap, method: &str) -> Result<(), Mismatch> {
    compare(headers, &METHOD, method)
}

fn compare(headers: &HeaderMap, name: &HeaderName, expected: &str) -> Result<(), Mismatch> {
    match decoded(headers, name)? {
        Some(said) if said == expected => Ok(()),
        Some(_) => Err(Mismatch::Differs { header: name.to_string() }),
        None => Err(Mismatch::Missing { header: name.to_string() }),
    }
}

/// A header's value: as it is, or as `=?base64?…?=`.
fn decoded(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Mismatch> {
    let unreadable = || Mismatch::Unreadable { header: name.to_string() };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unreadable());
    }
    let text = value.to_str().map_err(|_| unreadable())?.trim_matches([' ', '\t']);
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Some(text.to_owned()));
    };
    let bytes = STANDARD.decode(inner).map_err(|_| unreadable())?;
    String::from_utf8(bytes).map(Some).map_err(|_| unreadable())
}

/// Whether a header repeats this argument.
fn same(value: &Value, said: &str) -> bool {
    match value {
        Value::String(text) => text == said,
        Value::Bool(value) => said == if *value { "true" } else { "false" },
        Value::Number(number) => {
            number.to_string() == said || said.parse::<f64>().is_ok_and(|said| number.as_f64() == Some(said))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Collects the rules of a schema about headers.
fn collect(schema: &Value, path: &mut Vec<String>, rules: &mut Vec<Rule>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    if path.len() >= DEPTH {
        return;
    }
    for (name, property) in properties.iter().filter(|(name, _)| name.len() <= LONGEST_NAME) {
        if rules.len() >= MOST_RULES {
            return;
        }
        path.push(name.clone());
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        let header = header.and_then(|header| HeaderName::try_from(format!("mcp-param-{header}")).ok());
        if let Some(header) = header {
            rules.push(Rule { header, path: path.clone() });
        }
        collect(property, path, rules);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| -> (HeaderName, http::HeaderValue) {
            (name.parse().expect("a name"), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_text_that_no_header_can_say_is_encoded() {
        for (text, written) in [
            ("read_file", "read_file"),
            ("größe", "=?base64?Z3LDtsOfZQ==?="),
            ("two words", "two words"),
            (" edge", "=?base64?IGVkZ2U=?="),
            ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
        ] {
            assert_eq!(header_value(text), written);
        }
    }

    #[test]
    fn the_rules_of_a_server_are_bounded() {
        let add = |tools: &Value| {
            let page = json!({ "tools": tools }).to_string();
            let mut rules = HeaderRules::default();
            rules.add(serde_json::from_str(&page).expect("JSON"));
            rules
        };
        let tool = |name: &str, header: &str| {
            let properties = json!({ "a": { "x-mcp-header": header } });
            json!({ "name": name, "inputSchema": { "properties": properties } })
        };
        // One that is no tool, or whose schema is too large to be looked at, costs the others nothing.
        let large = json!({ "name": "b", "inputSchema": { "x": vec![1; 60_000], "properties": tool("b", "B") } });
        let rules = add(&json!([tool("a", "A"), { "name": 1 }, large, tool("c", "C")]));
        let mut named: Vec<_> = rules.tools.keys().collect();
        named.sort();
        assert_eq!(named, ["a", "c"]);
        let headers = |count: usize| (0..count).map(|n| (format!("p{n}"), json!({ "x-mcp-header": format!("H{n}") })));
        let properties: serde_json::Map<String, Value> = headers(1_000).collect();
        let rules = add(&json!([{ "name": "many", "inputSchema": { "properties": properties } }]));
        assert_eq!(rules.tools["many"].len(), MOST_RULES);
        let many: Vec<Value> = (0..1_000).map(|n| tool(&n.to_string(), &"h".repeat(2_000))).collect();
        let rules = add(&json!(many));
        assert!(!rules.tools.is_empty() && rules.size <= RULES_LIMIT, "{}", rules.size);
    }

    #[test]
    fn arguments_are_compared_with_their_headers() {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "count": { "type": "integer", "x-mcp-header": "Count" } } },
            "plain": { "type": "string" },
        }});
        let page = json!({ "tools": [{ "name": "t", "inputSchema": schema }], "nextCursor": "next" }).to_string();
        let mut rules = HeaderRules::default();
        let raw: &RawValue = serde_json::from_str(&page).expect("JSON");
        assert_eq!(rules.add(raw).as_deref(), Some("\"next\""));
        let check = |arguments: Value, pairs: &[(&str, &str)]| {
            let text = arguments.to_string();
            rules.check(&headers(pairs), "t", serde_json::from_str(&text).ok())
        };
        assert_eq!(check(json!({}), &[]), Ok(()));
        assert_eq!(check(json!({ "region": "eu" }), &[("Mcp-Param-Region", "eu")]), Ok(()));
        assert_eq!(check(json!({ "region": "Zürich" }), &[("mcp-param-region", "=?base64?WsO8cmljaA==?=")]), Ok(()));
        assert_eq!(check(json!({ "deep": { "count": 2 } }), &[("Mcp-Param-Count", "2")]), Ok(()));
        assert!(matches!(check(json!({ "region": "eu" }), &[]), Err(Mismatch::Missing { .. })));
        assert!(matches!(check(json!({}), &[("Mcp-Param-Region", "eu")]), Err(Mismatch::Differs { .. })));
        for arguments in [json!({ "region": " Zürich" }), json!({ "region": "eu", "deep": { "count": 2 } }), json!({})]
        {
            let raw: Box<RawValue> = serde_json::from_str(&arguments.to_string()).expect("JSON");
            let made: HeaderMap = rules.headers("t", Some(&raw)).into_iter().collect();
            assert_eq!(rules.check(&made, "t", Some(&raw)), Ok(()), "{arguments}");
        }
        let broken = check(json!({ "region": "eu" }), &[("Mcp-Param-Region", "=?base64?ZX!?=")]);
        assert!(matches!(broken, Err(Mismatch::Unreadable { .. })));
        let twice = [("Mcp-Param-Region", "eu"), ("Mcp-Param-Region", "us")];
        assert!(matches!(check(json!({ "region": "eu" }), &twice), Err(Mismatch::Unreadable { .. })));
    }
}
