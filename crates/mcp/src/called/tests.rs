//! A token for some tools against servers that read JSON in other ways.

use proptest::prelude::*;

use super::*;

fn rebuilt(body: &str) -> Result<Rebuilt, Ambiguous> {
    Rebuilt::of(&Bytes::copy_from_slice(body.as_bytes()), &HeaderMap::new())
}

fn called(body: &str) -> Vec<Called> {
    rebuilt(body).expect("a message that can be read in one way").called
}

#[test]
fn calls_are_found_however_they_are_written() {
    let tool = |name: &str| vec![Called::Tool(name.to_owned())];
    let escaped = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"r\u006d"}}"#;
    assert_eq!(called(escaped), tool("rm"));
    assert_eq!(called(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), Vec::new());
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"resources/list"}]"#;
    assert_eq!(called(batch), [Called::Harmless, Called::Other("resources/list".to_owned())]);
}

#[test]
fn what_is_sent_on_is_what_was_judged_and_its_values_stay() {
    let body = r#"{ "x":1, "params":{"y":2,"arguments":{"a":1.0,"A":2},"_meta":{"progressToken":7},"name":"read"},
        "id":"\u0031","method":"tools/call","jsonrpc":"1.0"}"#;
    let rebuilt = rebuilt(body).expect("a message");
    let text = r#"{"jsonrpc":"2.0","id":"\u0031","method":"tools/call","params":{"name":"read","_meta":{"progressToken":7},"arguments":{"a":1.0,"A":2}}}"#;
    assert_eq!(rebuilt.body, text);
    let answer = r#"{"id":3,"result":{"b":1,"a":2},"extra":{}}"#;
    assert_eq!(self::rebuilt(answer).expect("an answer").body, r#"{"jsonrpc":"2.0","id":3,"result":{"b":1,"a":2}}"#);
}

#[test]
fn what_two_servers_may_read_differently_is_refused() {
    let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    for body in [
        call(r#"{"name":"safe","Name":"danger"}"#),
        call(r#"{"name":"safe","name":"danger"}"#),
        call(r#"{"name":"safe","n\u0061me":"danger"}"#),
        call(r#"{"name":"safe","NAME":"danger","arguments":{}}"#),
        call(r#"{"name":"safe","argumentſ":{}}"#),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","Params":{"name":"danger"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"danger"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"danger"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"danger"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","ID":7,"method":"tools/call","params":{"name":"danger"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call","params":{"name":"danger"}}"#.to_owned(),
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},[]]"#.to_owned(),
        "not json".to_owned(),
        "7".to_owned(),
    ] {
        assert!(rebuilt(&body).is_err(), "{body}");
    }
    assert_eq!(called(&call(r#"{"name":7}"#)), [Called::Other("tools/call".to_owned())]);
    let params: Box<RawValue> = serde_json::from_str(r#"{"name":"safe","Name":"danger"}"#).expect("JSON");
    assert!(Called::by("tools/call", Some(&params)).is_err());
}

#[test]
fn headers_say_what_the_body_says_or_the_message_is_refused() {
    let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe"}}"#);
    for (headers, may) in [
        (vec![], true),
        (vec![("mcp-method", "tools/call"), ("mcp-name", "safe")], true),
        (vec![("mcp-name", "danger")], false),
        (vec![("mcp-name", "safe"), ("mcp-name", "danger")], false),
        (vec![("mcp-method", "resources/read")], false),
    ] {
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            map.append(*name, value.parse().expect("a value"));
        }
        assert_eq!(Rebuilt::of(&body, &map).is_ok(), may, "{headers:?}");
    }
}

#[test]
fn what_is_longer_than_the_protocol_needs_is_refused_before_it_is_judged() {
    let others = |count: usize| (0..count).map(|n| format!(r#","x{n}":0"#)).collect::<String>();
    let call = |count| format!(r#"{{"method":"tools/call","id":1,"params":{{"name":"safe"{}}}}}"#, others(count));
    assert!(rebuilt(&call(MOST_MEMBERS - 1)).is_ok());
    assert_eq!(rebuilt(&call(MOST_MEMBERS)).err(), Some(Ambiguous::ManyMembers));
    let ping = |count| format!(r#"{{"method":"ping","id":1{}}}"#, others(count));
    assert!(rebuilt(&ping(MOST_MEMBERS - 2)).is_ok());
    assert_eq!(rebuilt(&ping(650_000)).err(), Some(Ambiguous::ManyMembers));
    let batch = |count: usize| format!("[{}]", vec![ping(0); count].join(","));
    assert_eq!(called(&batch(BATCH_LIMIT)).len(), BATCH_LIMIT);
    assert_eq!(rebuilt(&batch(BATCH_LIMIT + 1)).err(), Some(Ambiguous::LongBatch));
    // What comes after the last message that may be is not looked at.
    let rest = format!("[{},7]", vec![ping(0); BATCH_LIMIT + 1].join(","));
    assert_eq!(rebuilt(&rest).err(), Some(Ambiguous::LongBatch));
}

#[test]
fn a_subscription_is_one_to_changes_of_tools_alone() {
    let listen = |params: &str| {
        let params = Some(params).filter(|params| !params.is_empty()).map(|params| format!(r#","params":{params}"#));
        let body = format!(r#"{{"id":1,"method":"subscriptions/listen"{}}}"#, params.unwrap_or_default());
        let Rebuilt { called, body, .. } = rebuilt(&body).expect("a message");
        assert_eq!(called, [Called::Harmless]);
        let message: Value = serde_json::from_slice(&body).expect("JSON");
        message["params"].to_string()
    };
    let all = r#"{"notifications":{"resourceSubscriptions":["file:///etc/passwd"],"resourcesListChanged":true,
        "toolsListChanged":true,"promptsListChanged":true},"_meta":{"a":1},"resourceSubscriptions":["x"]}"#;
    assert_eq!(listen(all), r#"{"_meta":{"a":1},"notifications":{"toolsListChanged":true}}"#);
    assert_eq!(listen(r#"{"notifications":{"resourcesListChanged":true}}"#), r#"{"notifications":{}}"#);
    assert_eq!(listen("{}"), r#"{"notifications":{}}"#);
    assert_eq!(listen(""), r#"{"notifications":{}}"#);
    for twice in [
        r#"{"notifications":{"toolsListChanged":true,"ToolsListChanged":true}}"#,
        r#"{"notifications":{},"Notifications":{"resourcesListChanged":true}}"#,
        r#"{"notifications":["resourcesListChanged"]}"#,
    ] {
        let params: Box<RawValue> = serde_json::from_str(twice).expect("JSON");
        assert!(Called::by("subscriptions/listen", Some(&params)).is_err(), "{twice}");
    }
    let params: Box<RawValue> = serde_json::from_str(all).expect("JSON");
    let (_, sent) = Called::by("subscriptions/listen", Some(&params)).expect("a call");
    assert!(!sent.expect("parameters").get().contains("resource"));
}

#[test]
fn only_headers_of_the_protocol_are_sent_on_and_they_say_what_was_judged() {
    let sent = |headers: &[(&'static str, &str)], body: Option<&'static str>| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let rebuilt = match body {
            Some(body) => Rebuilt::of(&Bytes::from_static(body.as_bytes()), &map).expect("a message"),
            None => Rebuilt::without_body(&map),
        };
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        rebuilt.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect::<Vec<_>>()
    };
    let call = r#"{"id":1,"method":"tools/call","params":{"name":"safe"}}"#;
    let batch = r#"[{"id":1,"method":"tools/call","params":{"name":"safe"}}]"#;
    let repeated = [("mcp-method", "tools/call"), ("mcp-name", "=?base64?c2FmZQ==?="), ("mcp-param-a", "1")];
    assert_eq!(sent(&repeated, Some(call)), ["mcp-method: tools/call", "mcp-name: safe", "mcp-param-a: 1"]);
    let evil = [("mcp-method", "resources/read"), ("mcp-name", "evil"), ("mcp-param-a", "1")];
    assert_eq!(sent(&evil, Some(batch)), Vec::<String>::new());
    assert_eq!(sent(&evil, None), Vec::<String>::new());
    let others = [("x-http-method-override", "PUT"), ("x-original-url", "/admin"), ("content-encoding", "gzip")];
    for body in [Some(call), Some(batch), None] {
        assert_eq!(sent(&others, body), Vec::<String>::new());
    }
    let kept = [("accept", "a/b"), ("accept", "c/d"), ("mcp-session-id", "s"), ("mcp-session-id", "t")];
    assert_eq!(sent(&kept, None), ["accept: a/b", "accept: c/d", "mcp-session-id: s"]);
}

/// A parser as some servers have it: names in any case, and the first or the last of several members.
struct Lenient {
    last: bool,
}

impl Lenient {
    fn get<'a>(&self, raw: &'a RawValue, name: &str) -> Option<&'a RawValue> {
        let members: Members<'a> = serde_json::from_str(raw.get()).ok()?;
        let mut found =
            members.first.into_iter().filter(|(written, _)| folded(written).eq(name.chars())).map(|(_, value)| value);
        if self.last { found.next_back() } else { found.next() }
    }

    /// The tools that it would run.
    fn runs(&self, body: &[u8]) -> Vec<String> {
        let whole: &RawValue = serde_json::from_slice(body).expect("JSON is sent on");
        let parts: Vec<&RawValue> = serde_json::from_str(whole.get()).unwrap_or_else(|_| vec![whole]);
        let run = |part: &&RawValue| {
            let method = self.get(part, "method").and_then(string_of)?;
            let name = self.get(self.get(part, "params")?, "name").and_then(string_of)?;
            method.eq_ignore_ascii_case("tools/call").then_some(name)
        };
        parts.iter().filter_map(run).collect()
    }
}

fn key(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let spelled = |(name, how): (&str, u8)| match how {
        0..4 => name.to_owned(),
        4 => name.to_uppercase(),
        5 => format!("{}{}", name[..1].to_uppercase(), &name[1..]),
        6 => format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]),
        _ => name.replace('s', "ſ"),
    };
    (prop::sample::select(names), 0..8_u8).prop_map(spelled)
}

fn object(
    names: &'static [&'static str],
    values: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = String> {
    let member = (key(names), values).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn envelope() -> impl Strategy<Value = String> {
    let name = prop::sample::select(&["\"safe\"", "\"danger\"", "\"Safe\"", "null", "7"][..]).prop_map(str::to_owned);
    let params = object(&["name", "arguments", "_meta", "other"], name);
    let scalar = prop::sample::select(
        &["1", "null", "\"2.0\"", "\"tools/call\"", "\"ping\"", "\"notifications/x\"", "{}", "\"TOOLS/CALL\""][..],
    );
    let value = prop_oneof![3 => scalar.prop_map(str::to_owned), 2 => params];
    let one = object(&["jsonrpc", "id", "method", "params", "result", "error", "x"], value).boxed();
    prop_oneof![
        4 => one.clone(),
        1 => prop::collection::vec(one, 0..3).prop_map(|parts| format!("[{}]", parts.join(","))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_server_runs_a_tool_that_was_not_judged(body in envelope()) {
        if let Ok(Rebuilt { called, body, .. }) = rebuilt(&body) {
            let judged: Vec<_> =
                called.into_iter().filter_map(|it| if let Called::Tool(name) = it { Some(name) } else { None }).collect();
            for last in [false, true] {
                prop_assert_eq!(Lenient { last }.runs(&body), judged.clone());
            }
        }
    }
}
