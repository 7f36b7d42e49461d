//! An MCP server on stdio for tests: it offers what the conformance suite asks for, in both eras, and misbehaves on
//! demand.
//!
//! `emergent-mcp-fixture [--only-legacy|--only-modern] [--lenient] [--rubbish] [--deaf-to-term] [--never-ready]
//! [--slow-start MILLISECONDS]`

mod content;
mod modern;
mod peer;
mod schemas;
mod tools;

use std::{io::BufRead as _, sync::Arc, thread, time::Duration};

use serde_json::{Value, json};

use peer::{Failure, Peer, Request};

/// The prefix of the newer era's `_meta` keys.
const PREFIX: &str = "io.modelcontextprotocol/";

fn main() {
    let flags: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| flags.iter().any(|one| one == flag);
    let peer = Arc::new(Peer::new(has("--only-legacy"), has("--only-modern")));
    if has("--rubbish") {
        peer.raw("Server ready \u{1b}[32mOK\u{1b}[0m\n\u{0}\u{1}\n[1,2\n{\"half\":\n\n{}\n[]\n");
    }
    if has("--never-ready") {
        thread::park();
    }
    if let Some(at) = flags.iter().position(|flag| flag == "--slow-start") {
        let milliseconds = flags.get(at + 1).and_then(|text| text.parse().ok()).unwrap_or_default();
        thread::sleep(Duration::from_millis(milliseconds));
    }
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let message = if has("--lenient") { lenient(message) } else { message };
        let (id, method) = (message.get("id").cloned(), message.get("method").and_then(Value::as_str));
        match (id, method) {
            (Some(id), Some(method)) => {
                let params = message.get("params").cloned().unwrap_or_else(|| json!({}));
                let request = Request { id, method: method.to_owned(), params, peer: Arc::clone(&peer) };
                // Some order is part of the protocol; the rest runs at once.
                if matches!(method, "initialize" | "server/discover") {
                    serve(&request);
                } else {
                    thread::spawn(move || serve(&request));
                }
            }
            (Some(id), None) => peer.answered(&id, &message),
            (None, Some(method)) => peer.told(method, message.get("params").unwrap_or(&Value::Null)),
            (None, None) => {}
        }
    }
    if has("--deaf-to-term") {
        // Deaf to the end of stdin, too.
        thread::park();
    }
}

/// A message as some parsers read it: names count in any case, another spelling counts before the right one, and a
/// message without an id is a request all the same.
fn lenient(message: Value) -> Value {
    let Value::Object(members) = message else { return message };
    let lower = |members: serde_json::Map<String, Value>| -> serde_json::Map<String, Value> {
        // In the order of bytes, capitals come first: what comes last stays.
        members.into_iter().rev().map(|(name, value)| (name.to_lowercase(), value)).collect()
    };
    let mut members = lower(members);
    if let Some(Value::Object(params)) = members.remove("params") {
        members.insert("params".to_owned(), Value::Object(lower(params)));
    }
    if members.get("method").and_then(Value::as_str).is_some_and(|method| !method.starts_with("notifications/")) {
        members.entry("id").or_insert(Value::Null);
    }
    Value::Object(members)
}

fn serve(request: &Request) {
    match dispatch(request) {
        Ok(Some(result)) => request.result(result),
        Ok(None) => {}
        Err(failure) => request.fail(&failure),
    }
}

/// Answers a request; `None` where the answer is given elsewhere, or never.
fn dispatch(request: &Request) -> Result<Option<Value>, Failure> {
    let peer = &request.peer;
    if request.is_modern() {
        if peer.only_legacy {
            return Err(Failure::unknown_method(&request.method));
        }
        return modern::dispatch(request);
    }
    if peer.only_modern {
        return Err(modern::unsupported(&json!("2025-11-25")));
    }
    let params = &request.params;
    match request.method.as_str() {
        "initialize" => {
            peer.initialized(params);
            Ok(Some(json!({
                "protocolVersion": content::agreed(params),
                "capabilities": {
                    "tools": { "listChanged": true }, "prompts": { "listChanged": true },
                    "resources": { "subscribe": true, "listChanged": true }, "logging": {}, "completions": {},
                    "experimental": { "x-vendor": { "kept": 1.0 } },
                },
                "serverInfo": content::server_info(),
                "instructions": "For tests only.",
            })))
        }
        "ping" | "logging/setLevel" => Ok(Some(json!({}))),
        "resources/subscribe" | "resources/unsubscribe" => {
            peer.subscribe(params.get("uri").and_then(Value::as_str), request.method.ends_with("/subscribe"));
            Ok(Some(json!({})))
        }
        "tools/call" => tools::call(request),
        method => content::answer(method, params).map(Some),
    }
}
