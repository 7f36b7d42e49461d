//! The newer era: discovery, subscriptions, and results that ask for input.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use crate::{
    PREFIX, content,
    peer::{Failure, Request},
    tools,
};

const VERSION: &str = "2026-07-28";

pub(crate) fn dispatch(request: &Request) -> Result<Option<Value>, Failure> {
    let version = request.meta("protocolVersion").ok_or_else(|| Failure::new(-32602, "no protocolVersion in _meta"))?;
    if version != VERSION {
        return Err(unsupported(version));
    }
    let capabilities = request.meta("clientCapabilities").cloned().unwrap_or_else(|| json!({}));
    let cached = |result: Value| {
        let mut result = complete(result);
        result["ttlMs"] = json!(1000);
        result["cacheScope"] = json!("private");
        Ok(Some(result))
    };
    let name = request.params.get("name").and_then(Value::as_str).unwrap_or_default();
    match request.method.as_str() {
        "server/discover" => cached(json!({
            "supportedVersions": [VERSION],
            "capabilities": {
                "tools": { "listChanged": true }, "prompts": { "listChanged": true },
                "resources": { "listChanged": true }, "completions": {},
            },
            "_meta": { (format!("{PREFIX}serverInfo")): content::server_info() },
        })),
        "subscriptions/listen" => {
            let wanted = request.params.get("notifications").cloned().unwrap_or_default();
            let params =
                json!({ "notifications": wanted, "_meta": { (format!("{PREFIX}subscriptionId")): request.id } });
            request.peer.listen(&request.id, &wanted);
            request.peer.notify("notifications/subscriptions/acknowledged", &params);
            Ok(None)
        }
        "tools/call" if name == "test_missing_capability" && capabilities.get("sampling").is_none() => Err(Failure {
            code: -32021,
            message: "this tool needs a client that samples".to_owned(),
            data: Some(json!({ "requiredCapabilities": { "sampling": {} } })),
        }),
        "tools/call" | "prompts/get"
            if name.starts_with("test_input_required") || name == "test_streaming_elicitation" =>
        {
            asking(request, name, &capabilities).map(complete).map(Some)
        }
        "tools/call" => Ok(tools::call(request)?.map(complete)),
        method @ ("tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read") => {
            cached(content::answer(method, &request.params)?)
        }
        method @ ("prompts/get" | "completion/complete") => {
            content::answer(method, &request.params).map(complete).map(Some)
        }
        method => Err(Failure::unknown_method(method)),
    }
}

pub(crate) fn unsupported(requested: &Value) -> Failure {
    let data = Some(json!({ "supported": [VERSION], "requested": requested }));
    Failure { code: -32022, message: "Unsupported protocol version".to_owned(), data }
}

fn complete(mut result: Value) -> Value {
    if result.get("resultType").is_none() {
        result["resultType"] = json!("complete");
    }
    result
}

/// Tools (and one prompt) that ask for input before they answer.
fn asking(request: &Request, name: &str, capabilities: &Value) -> Result<Value, Failure> {
    let answers = match request.params.get("inputResponses") {
        None => Map::new(),
        Some(Value::Object(answers)) if answers.values().all(Value::is_object) => answers.clone(),
        Some(_) => return Err(Failure::new(-32602, "inputResponses is an object of objects")),
    };
    let state = match request.params.get("requestState").and_then(Value::as_str) {
        Some(state) => opened(state)?,
        None => "start",
    };
    let name_of = || elicitation("What is your name?", "name", "string");
    let roots = || ("client_roots", json!({ "method": "roots/list", "params": {} }));
    let (wanted, next) = match (name, state) {
        ("test_input_required_result_sampling", _) => {
            (vec![("capital_question", sampling("What is the capital of France?"))], None)
        }
        ("test_input_required_result_list_roots", _) => (vec![roots()], None),
        ("test_input_required_result_request_state" | "test_input_required_result_tampered_state", _) => {
            (vec![("confirm", elicitation("Please confirm", "ok", "boolean"))], Some("confirm"))
        }
        ("test_input_required_result_multiple_inputs", _) => {
            (vec![("user_name", name_of()), ("greeting", sampling("Generate a greeting")), roots()], Some("several"))
        }
        ("test_input_required_result_multi_round", "step2") => {
            (vec![("step2", elicitation("Step 2: What is your favorite color?", "color", "string"))], None)
        }
        ("test_input_required_result_multi_round", _) if answers.contains_key("step1") => {
            let ask = elicitation("Step 2: What is your favorite color?", "color", "string");
            return Ok(required(&[("step2", ask)], Some("step2")));
        }
        ("test_input_required_result_multi_round", _) => {
            (vec![("step1", elicitation("Step 1: What is your name?", "name", "string"))], Some("step1"))
        }
        ("test_input_required_result_prompt", _) => {
            let ask = elicitation("What context should the prompt use?", "context", "string");
            (vec![("user_context", ask)], None)
        }
        ("test_input_required_result_capabilities", _) => {
            let all = [("sampling", sampling("Hello?")), ("elicitation", name_of())];
            (all.into_iter().filter(|(area, _)| capabilities.get(*area).is_some()).collect(), None)
        }
        _ => (vec![("user_name", name_of())], None),
    };
    if wanted.iter().all(|(key, _)| answers.contains_key(*key)) {
        if name.ends_with("_prompt") {
            let message = json!({ "role": "user", "content": { "type": "text", "text": "With your context." } });
            return Ok(json!({ "messages": [message] }));
        }
        return Ok(tools::text(&format!("Hello! state-ok {}", Value::from(answers))));
    }
    Ok(required(&wanted, next))
}

fn required(wanted: &[(&str, Value)], state: Option<&str>) -> Value {
    let requests: Map<String, Value> = wanted.iter().map(|(key, ask)| ((*key).to_owned(), ask.clone())).collect();
    let mut result = json!({ "resultType": "input_required", "inputRequests": requests });
    if let Some(state) = state {
        result["requestState"] = json!(sealed(state));
    }
    result
}

fn elicitation(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { (field): { "type": kind } }, "required": [field] });
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

fn sampling(text: &str) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": text } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": 100 } })
}

fn sealed(state: &str) -> String {
    format!("{state}.{:016x}", seal(state))
}

fn opened(state: &str) -> Result<&str, Failure> {
    let refused = || Failure::new(-32602, "requestState was changed");
    let (payload, mark) = state.rsplit_once('.').ok_or_else(refused)?;
    if mark == format!("{:016x}", seal(payload)) { Ok(payload) } else { Err(refused()) }
}

/// The mark of a state: a weak hash, enough for a fixture, which nobody attacks.
fn seal(state: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("fixture", state).hash(&mut hasher);
    hasher.finish()
}
