//! One endpoint for many servers, each of them a bridge over the fixture.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_budget::Account;
use emergent_mcp::{Bridge, BridgeConfig, Catalogues, Era, Gateway, Upstream, UpstreamBody, Upstreams};
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::watch;

use crate::support::{
    Client, Events, LONG, MODERN, bridge_over, fixture, modern, modern_tool, post, quick, text, until, whole,
};

/// Servers by name, some of whose tools may be used.
#[derive(Default)]
struct Servers {
    /// The servers' bridges by name; a server in trouble has none.
    bridges: Mutex<BTreeMap<String, Option<Arc<Bridge>>>>,
    /// The servers of which only one tool may be used, each with this tool.
    only: Vec<(&'static str, &'static str)>,
    /// Whether lists come from warm processes, too.
    warm: bool,
    catalogues: Arc<Catalogues>,
    /// The number of times that the servers were listed.
    lists: AtomicUsize,
    changes: watch::Sender<u64>,
}

impl Servers {
    async fn host(&self, name: &str, flags: &[&str]) -> Arc<Bridge> {
        let bridge = bridge_over(fixture(flags), quick()).await;
        self.put(name, &bridge);
        bridge
    }

    fn put(&self, name: &str, bridge: &Arc<Bridge>) {
        self.bridges().insert(name.to_owned(), Some(Arc::clone(bridge)));
        self.changes.send_modify(|count| *count += 1);
    }

    fn bridges(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<Bridge>>>> {
        self.bridges.lock()
    }

    fn remove(&self, name: &str) {
        self.bridges().remove(name);
        self.changes.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Upstreams for Servers {
    async fn list(&self) -> Vec<Upstream> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let upstream = |(name, bridge): (&String, &Option<Arc<Bridge>>)| Upstream {
            name: name.clone(),
            version: format!("{:?}", bridge.as_ref().map(Arc::as_ptr)),
            trouble: bridge.is_none().then(|| "it is being repaired".to_owned()),
        };
        self.bridges().iter().map(upstream).collect()
    }

    async fn list_warm(&self, server: &str, method: &str, params: &str) -> Option<Bytes> {
        let bridge = self.bridges().get(server).cloned().flatten().filter(|_| self.warm)?;
        let params: Box<RawValue> = serde_json::from_str(params).expect("JSON");
        bridge.call(method, Some(&params), LONG).await.ok().map(|page| page.get().to_owned().into())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn allows_tool(&self, server: &str, tool: &str) -> bool {
        self.only.iter().all(|(limited, only)| *limited != server || *only == tool)
    }

    fn allows_all_of(&self, server: &str) -> bool {
        self.only.iter().all(|(limited, _)| *limited != server)
    }

    async fn ask(&self, server: &str, request: Request<Bytes>) -> Response<UpstreamBody> {
        let bridge = self.bridges().get(server).cloned().flatten();
        let Some(bridge) = bridge else {
            let body = Full::from(r#"{"detail":"it is being repaired"}"#).map_err(|never| match never {});
            let response = Response::builder().status(503).header("content-type", "application/problem+json");
            return response.body(body.boxed_unsync()).expect("a response");
        };
        let (mut head, body) = request.into_parts();
        head.headers.insert("host", "localhost".parse().expect("a value"));
        let answer = bridge.handle(Request::from_parts(head, Full::new(body))).await;
        answer.map(|body| body.map_err(|never| match never {}).boxed_unsync())
    }

    fn account(&self) -> Option<Account> {
        None
    }
}

/// A server that asks with a long id before it answers a call, and answers with the code of the error that it gets.
#[derive(Default)]
struct LongAsker {
    told: watch::Sender<Option<i64>>,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl Upstreams for LongAsker {
    async fn list(&self) -> Vec<Upstream> {
        vec![Upstream { name: "asker".to_owned(), version: "1".to_owned(), trouble: None }]
    }

    async fn list_warm(&self, _: &str, _: &str, _: &str) -> Option<Bytes> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn allows_tool(&self, _: &str, _: &str) -> bool {
        true
    }

    fn allows_all_of(&self, _: &str) -> bool {
        true
    }

    async fn ask(&self, _: &str, request: Request<Bytes>) -> Response<UpstreamBody> {
        let message: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let result = |id: &Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
        let (kind, body) = match message["method"].as_str() {
            Some("initialize") => {
                let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
                ("application/json", Full::from(result(&message["id"], hello).to_string()).boxed_unsync())
            }
            Some("tools/call") => {
                let mut told = self.told.subscribe();
                let question = json!({ "jsonrpc": "2.0", "id": "x".repeat(2_000), "method": "ping" });
                let answer = async move {
                    let code = *told.wait_for(Option::is_some).await.expect("a code");
                    result(&message["id"], json!({ "content": [{ "type": "text", "text": format!("{code:?}") }] }))
                };
                let messages = stream::iter([question]).chain(stream::once(answer));
                let frames = messages.map(|message| Ok(Frame::data(Bytes::from(format!("data: {message}\n\n")))));
                ("text/event-stream", StreamBody::new(frames).boxed_unsync())
            }
            _ => {
                if let Some(code) = message["error"]["code"].as_i64() {
                    self.told.send_replace(Some(code));
                }
                ("application/json", Full::default().boxed_unsync())
            }
        };
        let body = body.map_err(|never: Infallible| match never {}).boxed_unsync();
        Response::builder().header("content-type", kind).body(body).expect("a response")
    }

    fn account(&self) -> Option<Account> {
        None
    }
}

async fn gateway(servers: &Arc<Servers>) -> Arc<Bridge> {
    let catalogues = Arc::clone(&servers.catalogues);
    let servers: Arc<dyn Upstreams> = Arc::clone(servers) as _;
    bridge_over(Gateway::new(servers, catalogues), BridgeConfig { era: Some(Era::Modern), ..quick() }).await
}

/// Two servers of both eras.
async fn two() -> (Arc<Servers>, Arc<Bridge>) {
    let servers = Arc::<Servers>::default();
    servers.host("one", &[]).await;
    servers.host("two", &[]).await;
    let gateway = gateway(&servers).await;
    (servers, gateway)
}

async fn connect(gateway: &Arc<Bridge>) -> Client {
    Client::connect_to(gateway, "test", "2025-11-25", "emergent").await
}

fn names(result: &Value, of: &str) -> Vec<String> {
    let items = result["result"][of].as_array().unwrap_or_else(|| panic!("{result}"));
    items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
}

/// One list, and the messages before it.
async fn list_once(client: &Client, of: &str) -> (Vec<String>, Vec<Value>) {
    let request = json!({ "jsonrpc": "2.0", "id": client.id(), "method": format!("{of}/list") });
    let answer = client.post(&request).await;
    if answer.headers()["content-type"] == "application/json" {
        return (names(&whole(answer).await, of), Vec::new());
    }
    let (mut events, mut messages) = (Events::of(answer), Vec::new());
    while let Some(message) = events.message().await {
        messages.push(message);
    }
    let result = messages.pop().expect("an answer");
    (names(&result, of), messages)
}

/// The list, once it has something of each of these servers: on a slow machine one may come later.
async fn list_with(client: &Client, of: &str, servers: &[&str]) -> Vec<String> {
    let found = Mutex::new(Vec::new());
    until("the list is whole", || async {
        let names = list_once(client, of).await.0;
        let whole = servers.iter().all(|server| names.iter().any(|name| name.starts_with(&format!("{server}__"))));
        *found.lock() = names;
        whole
    })
    .await;
    found.into_inner()
}

/// Waits until the client is told of a change.
async fn told(events: &mut Events, of: &str) {
    let method = format!("notifications/{of}/list_changed");
    while events.message().await.expect("a message")["method"] != method.as_str() {}
}

#[tokio::test]
async fn tools_and_prompts_of_all_servers_are_there_under_names_that_tell_their_server() {
    let (_servers, gateway) = two().await;
    let client = connect(&gateway).await;
    let tools = list_with(&client, "tools", &["one", "two"]).await;
    assert!(tools.contains(&"one__echo".to_owned()) && tools.contains(&"two__echo".to_owned()), "{tools:?}");
    assert_eq!(tools.len() % 2, 0);
    assert!(list_with(&client, "prompts", &["two"]).await.contains(&"two__test_simple_prompt".to_owned()));
    assert_eq!(client.text("one__count", json!({})).await, "1");
    assert_eq!(client.text("one__count", json!({})).await, "2");
    assert_eq!(client.text("two__count", json!({})).await, "1");
    // Each server sees the client as it is.
    assert!(client.text("two__whoami", json!({})).await.contains(r#""name":"test""#));
    let prompt = json!({ "jsonrpc": "2.0", "id": 70, "method": "prompts/get",
        "params": { "name": "one__test_simple_prompt" } });
    assert!(whole(client.post(&prompt).await).await["result"]["messages"].is_array());
}

#[tokio::test]
async fn answers_progress_errors_and_what_vendors_add_come_as_they_are() {
    let (_servers, gateway) = two().await;
    let client = connect(&gateway).await;
    let echoed = client.call("one__echo", json!({ "text": "hi" })).await;
    assert_eq!(echoed["result"]["x-vendor"], json!({ "kept": 1.0 }));
    let mut events = Events::of(client.start(&json!("x"), "two__slow", &json!({ "ms": 200 })).await);
    assert_eq!(events.message().await.expect("progress")["params"]["progressToken"], "x");
    assert_eq!(events.message().await.expect("an answer")["id"], "x");
    for (name, code) in [("one__no_such", -32602), ("no_such", -32602), ("three__echo", -32603)] {
        assert_eq!(client.call(name, json!({})).await["error"]["code"], code, "{name}");
    }
    let unknown = json!({ "jsonrpc": "2.0", "id": 71, "method": "resources/list" });
    assert_eq!(whole(client.post(&unknown).await).await["error"]["code"], -32601);
}

#[tokio::test]
async fn cancelling_reaches_the_server() {
    let (_servers, gateway) = two().await;
    let client = connect(&gateway).await;
    client.text("one__count", json!({})).await;
    let hanging = client.start(&json!(900), "one__slow", &json!({ "ms": 60_000 })).await;
    client
        .post(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 900 } }))
        .await;
    until("the server is told", || async { client.text("one__cancelled", json!({})).await == "[900]" }).await;
    drop(hanging);
}

#[tokio::test]
async fn a_server_asks_the_client_that_calls_it_and_two_may_ask_at_once() {
    let (_servers, gateway) = two().await;
    let client = connect(&gateway).await;
    let mut standing = client.events(None).await;
    let start = async |id: u32, tool: &str, prompt: &str| {
        Events::of(client.start(&json!(id), tool, &json!({ "prompt": prompt })).await)
    };
    let (mut one, mut two) =
        tokio::join!(start(1, "one__test_sampling", "first"), start(2, "two__test_sampling", "second"));
    // With two that wait, what is asked comes on the standing stream; each answer finds the server that has asked.
    let first = tokio::select! {
        asked = standing.message() => asked,
        asked = one.message() => asked,
        asked = two.message() => asked,
    };
    let mut questions = vec![first.expect("a request")];
    questions.push(
        tokio::select! {
            asked = standing.message() => asked,
            asked = one.message() => asked,
            asked = two.message() => asked,
        }
        .expect("a request"),
    );
    for asked in questions.iter().rev() {
        assert_eq!(asked["method"], "sampling/createMessage");
        let said = asked["params"]["messages"][0]["content"]["text"].clone();
        client.post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "content": { "text": said } } })).await;
    }
    for (events, said) in [(&mut one, "LLM response: first"), (&mut two, "LLM response: second")] {
        assert_eq!(events.message().await.expect("an answer")["result"]["content"][0]["text"], said);
    }
}

#[tokio::test]
async fn changes_are_told_whoever_makes_them() {
    let (servers, gateway) = two().await;
    let client = connect(&gateway).await;
    let mut events = client.events(None).await;
    assert!(!list_with(&client, "tools", &["one", "two"]).await.iter().any(|name| name.starts_with("new__")));
    client.call("one__test_trigger_tool_change", json!({})).await;
    told(&mut events, "tools").await;
    servers.host("new", &[]).await;
    told(&mut events, "tools").await;
    told(&mut events, "prompts").await;
    assert!(list_with(&client, "tools", &["new"]).await.contains(&"new__echo".to_owned()));
    assert_eq!(client.text("new__count", json!({})).await, "1");
    servers.remove("new");
    told(&mut events, "prompts").await;
    assert!(!list_once(&client, "tools").await.0.iter().any(|name| name.starts_with("new__")));
    let refused = client.call("new__count", json!({})).await;
    assert!(refused["error"]["message"].as_str().expect("a message").contains("it is being repaired"), "{refused}");
    assert_eq!(client.text("two__count", json!({})).await, "1");
}

#[tokio::test]
async fn a_server_that_is_down_does_not_hide_the_others_and_comes_back() {
    let (servers, gateway) = two().await;
    let client = connect(&gateway).await;
    let broken = bridge_over(emergent_mcp::ProcessLauncher::new(["false"]), quick()).await;
    servers.put("broken", &broken);
    let tools = list_with(&client, "tools", &["one", "two"]).await;
    assert!(tools.contains(&"one__echo".to_owned()) && !tools.iter().any(|name| name.starts_with("broken__")));
    // Its process ends under the session: the next call has a new one.
    assert_eq!(client.text("one__count", json!({})).await, "1");
    assert_eq!(client.call("one__exit", json!({ "code": 3 })).await["error"]["code"], -32603);
    assert_eq!(client.text("one__count", json!({})).await, "1");
}

#[tokio::test]
async fn a_slow_server_holds_no_list_up_and_comes_when_it_is_there() {
    let servers = Arc::<Servers>::default();
    servers.host("quick", &[]).await;
    servers.host("slow", &["--slow-start", "8000"]).await;
    let gateway = gateway(&servers).await;
    let client = connect(&gateway).await;
    let mut events = client.events(None).await;
    let tools = list_with(&client, "tools", &["quick"]).await;
    assert!(!tools.iter().any(|name| name.starts_with("slow__")), "{tools:?}");
    // Whoever comes later does not wait for it at all; what it is slow at goes on.
    let other = connect(&gateway).await;
    list_with(&other, "tools", &["quick"]).await;
    told(&mut events, "tools").await;
    assert!(list_with(&client, "tools", &["slow"]).await.contains(&"slow__echo".to_owned()));
    assert_eq!(client.text("slow__count", json!({})).await, "1");
}

#[tokio::test]
async fn many_servers_that_are_warm_or_known_are_in_the_first_list() {
    let servers = Arc::new(Servers { warm: true, ..Servers::default() });
    let all: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    for name in &all {
        // A session takes long to begin, and a process that is warm answers at once.
        let bridge = servers.host(name, &["--slow-start", "4000"]).await;
        tokio::spawn(async move { bridge.call("tools/list", None, LONG).await });
    }
    let bridges: Vec<_> = servers.bridges().values().flatten().cloned().collect();
    until("all are warm", || async {
        let calls = bridges.iter().map(|bridge| bridge.call("tools/list", None, LONG));
        futures::future::join_all(calls).await.iter().all(Result::is_ok)
    })
    .await;
    let gateway = gateway(&servers).await;
    for _ in 0..2 {
        let (tools, _) = list_once(&connect(&gateway).await, "tools").await;
        let listed = all.iter().filter(|name| tools.contains(&format!("{name}__echo"))).count();
        assert_eq!(listed, all.len(), "{tools:?}");
    }
}

#[tokio::test]
async fn who_is_left_out_of_a_list_is_told_once_and_why() {
    let (servers, gateway) = two().await;
    let client = connect(&gateway).await;
    servers.bridges().insert("ill".to_owned(), None);
    servers.put("broken", &bridge_over(emergent_mcp::ProcessLauncher::new(["false"]), quick()).await);
    let mut said = Vec::new();
    for _ in 0..100 {
        let (_, messages) = list_once(&client, "tools").await;
        said.extend(messages.iter().filter_map(|message| message["params"]["data"].as_str().map(str::to_owned)));
        if said.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    said.sort();
    assert!(said[0].contains(r#""broken""#) && said[0].contains("exited with code 1"), "{said:?}");
    assert!(said[1].contains(r#""ill""#) && said[1].contains("it is being repaired"), "{said:?}");
    let again = list_once(&client, "tools").await.1;
    assert!(again.iter().all(|message| message["method"] != "notifications/message"), "{again:?}");
}

#[tokio::test]
async fn only_tools_that_are_allowed_are_there() {
    let servers = Arc::new(Servers { only: vec![("one", "echo")], ..Servers::default() });
    servers.host("one", &[]).await;
    let gateway = gateway(&servers).await;
    let client = connect(&gateway).await;
    assert_eq!(list_with(&client, "tools", &["one"]).await, ["one__echo"]);
    assert_eq!(list_once(&client, "prompts").await.0, Vec::<String>::new());
    assert_eq!(client.call("one__count", json!({})).await["error"]["code"], -32602);
    assert_eq!(client.text("one__echo", json!({ "text": "hi" })).await, "hi");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let servers = Arc::<Servers>::default();
    let one = servers.host("s0", &[]).await;
    for number in 1..8 {
        servers.put(&format!("s{number}"), &one);
    }
    let gateway = gateway(&servers).await;
    let client = connect(&gateway).await;
    // What is not known on the first page is not on the others.
    let request = json!({ "jsonrpc": "2.0", "id": 98, "method": "tools/list" });
    until("all servers are known", || async {
        let first = whole(client.post(&request).await).await;
        names(&first, "tools").len() == 250
    })
    .await;
    let (mut all, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let request = json!({ "jsonrpc": "2.0", "id": client.id(), "method": "tools/list", "params": params });
        let page = whole(client.post(&request).await).await;
        all.extend(names(&page, "tools"));
        pages += 1;
        cursor = page["result"]["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert!(pages > 1 && all.len() == 8 * all.iter().filter(|name| name.starts_with("s0__")).count());
    assert_eq!(distinct.len(), all.len());
    let request = json!({ "jsonrpc": "2.0", "id": 99, "method": "tools/list", "params": { "cursor": "nonsense" } });
    assert_eq!(whole(client.post(&request).await).await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_long_id_of_a_server_is_refused_and_kept_for_nobody() {
    let servers: Arc<dyn Upstreams> = Arc::new(LongAsker::default());
    let gateway = Gateway::new(servers, Arc::default());
    let gateway = bridge_over(gateway, BridgeConfig { era: Some(Era::Modern), ..quick() }).await;
    assert_eq!(connect(&gateway).await.text("asker__any", json!({})).await, "Some(-32600)");
}

#[tokio::test]
async fn newer_clients_reach_servers_of_both_eras() {
    let servers = Arc::<Servers>::default();
    servers.host("new", &[]).await;
    servers.host("old", &["--only-legacy"]).await;
    let gateway = gateway(&servers).await;
    let found = whole(modern(&gateway, &json!(1), "server/discover", json!({})).await).await;
    assert_eq!(found["result"]["supportedVersions"], json!([MODERN]));
    until("both are in the list", || async {
        let tools = whole(modern(&gateway, &json!(2), "tools/list", json!({})).await).await;
        assert_eq!(tools["result"]["resultType"], "complete");
        let names = names(&tools, "tools");
        ["old__echo", "new__echo"].iter().all(|name| names.contains(&(*name).to_owned()))
    })
    .await;
    for tool in ["new__echo", "old__echo"] {
        let echoed = whole(modern_tool(&gateway, &json!("same"), tool, json!({ "text": "hi" })).await).await;
        assert_eq!(echoed["id"], "same");
        assert_eq!(echoed["result"]["content"][0]["text"], "hi");
        assert_eq!(echoed["result"]["resultType"], "complete", "{echoed}");
        let mut events =
            Events::of(modern_tool(&gateway, &json!(5), &tool.replace("echo", "slow"), json!({ "ms": 100 })).await);
        assert_eq!(events.message().await.expect("progress")["params"]["progressToken"], 5);
        assert_eq!(events.message().await.expect("an answer")["id"], 5);
    }
    // An argument that is repeated in a header is so on the way to the server, too.
    let meta =
        json!({ "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {} });
    let call = json!({ "jsonrpc": "2.0", "id": 6, "method": "tools/call", "params": {
        "name": "new__test_x_mcp_header", "arguments": { "region": "Zürich" }, "_meta": meta } });
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "new__test_x_mcp_header"),
        ("mcp-param-region", "=?base64?WsO8cmljaA==?="),
    ];
    let answer = whole(post(&gateway, &headers, &call.to_string()).await).await;
    assert!(answer["result"]["content"].is_array(), "{answer}");
    let refused = whole(post(&gateway, &headers[..3], &call.to_string()).await).await;
    assert_eq!(refused["error"]["code"], -32020, "{refused}");
    let unknown = modern(&gateway, &json!(7), "resources/list", json!({})).await;
    assert_eq!(unknown.status(), 404, "{}", text(unknown).await);
}

#[tokio::test]
async fn newer_clients_are_told_of_changes_and_leave_with_their_response() {
    let (servers, gateway) = two().await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let mut events = Events::of(modern(&gateway, &json!("l"), "subscriptions/listen", wanted).await);
    let first = events.message().await.expect("a message");
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    servers.host("three", &[]).await;
    let changed = events.message().await.expect("a message");
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
    let hanging = modern_tool(&gateway, &json!(1), "one__slow", json!({ "ms": 60_000 })).await;
    drop(hanging);
    let cancelled = async || {
        let answer = modern_tool(&gateway, &json!(2), "one__cancelled", json!({})).await;
        whole(answer).await["result"]["content"][0]["text"].as_str().expect("text").to_owned()
    };
    until("the server is told", || async { cancelled().await != "[]" }).await;
}

#[tokio::test(start_paused = true)]
async fn clients_list_the_servers_when_a_change_is_told_and_not_otherwise() {
    let servers = Arc::<Servers>::default();
    let gateway = gateway(&servers).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(&gateway).await);
    }
    let lists = || servers.lists.load(Ordering::Relaxed);
    until("each has listed them", || std::future::ready(lists() == clients.len())).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(lists(), clients.len());
    servers.changes.send_modify(|count| *count += 1);
    until("each has listed them again", || std::future::ready(lists() == 2 * clients.len())).await;
}

#[tokio::test]
async fn sessions_at_the_servers_end_with_the_clients() {
    let servers = Arc::<Servers>::default();
    let one = servers.host("one", &[]).await;
    let gateway = gateway(&servers).await;
    let client = connect(&gateway).await;
    assert_eq!(client.text("one__count", json!({})).await, "1");
    assert_eq!(one.status().sessions, 1);
    client.delete().await;
    until("the session ends", || async { one.status().sessions == 0 && one.status().children.is_empty() }).await;
}
