//! Messages of all shapes stay what they were.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(text: &str) -> Result<Message, Malformed> {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()))
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|id| id.to_string()),
        any::<u128>().prop_map(|id| id.to_string()),
        (any::<i32>(), 0_u32..1000).prop_map(|(whole, part)| format!("{whole}.{part}")),
        "\\PC{0,20}".prop_map(|id| Value::String(id).to_string()),
        Just("\"\\u0041\\n\"".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |f| serde_json::Number::from_f64(f).map(Value::Number)),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_/]{1,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn id_put_there_and_back_leaves_every_byte(
        id in id(), token in id(), body in value(), vendor in value(), blank in "[ \t]{0,2}",
    ) {
        let sent = format!(
            r#"{{"x-vendor":{vendor},{blank}"id"{blank}:{id},"params":{{"_meta":{{"progressToken":{token}}},"v":{body}}},"method":"tools/call","jsonrpc":"2.0"}}"#
        );
        let message = parse(&sent).expect("a message");
        prop_assert_eq!(message.raw_id(), Some(id.as_str()));
        let place = message.params().meta().and_then(|m| m.progress_token).and_then(|t| message.place(t));
        prop_assert!(place.is_some());
        let away = message.with([(message.id.clone(), "17".to_owned()), (place, "18".to_owned())]);
        let there = Message::parse(away).expect("a message");
        prop_assert_eq!(there.raw_id(), Some("17"));
        let place = there.params().meta().and_then(|m| m.progress_token).and_then(|t| there.place(t));
        let back = there.with([(there.id.clone(), id), (place, token)]);
        prop_assert_eq!(back, sent.as_bytes());
    }

    #[test]
    fn nothing_that_is_sent_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(Bytes::from(bytes));
    }

    #[test]
    fn key_survives_another_spelling(number in -9_007_199_254_740_991_i64..9_007_199_254_740_991) {
        prop_assert_eq!(IdKey::of(&number.to_string()), IdKey::of(&format!("{number}.0")));
        prop_assert_ne!(IdKey::of(&number.to_string()), IdKey::of(&format!("\"{number}\"")));
    }
}

#[test]
fn kinds_are_told_apart_by_members() {
    let kind = |text| parse(text).map(|message| message.kind);
    assert_eq!(kind(r#"{"id":1,"method":"m"}"#), Ok(Kind::Request("m".into())));
    assert_eq!(kind(r#"{"method":"m"}"#), Ok(Kind::Notification("m".into())));
    assert_eq!(kind(r#"{"id":1,"result":null}"#), Ok(Kind::Result));
    assert_eq!(kind(r#"{"id":null,"error":{"code":-32700.0,"message":""}}"#), Ok(Kind::Error { code: -32700 }));
    for none in [
        "{}",
        "1",
        "null",
        r#""a""#,
        r#"{"id":1}"#,
        r#"{"id":true,"method":"m"}"#,
        r#"{"id":{},"method":"m"}"#,
        r#"{"method":1,"id":1}"#,
        r#"{"id":1,"result":1,"error":{}}"#,
        r#"{"id":1,"id":2,"method":"m"}"#,
    ] {
        assert_eq!(kind(none), Err(Malformed::NotAMessage), "{none}");
    }
    for none in ["", "{", "{]", "nonsense", "\u{1b}[32mready", r#"{"id":1,"method":"m"} x"#] {
        assert_eq!(kind(none), Err(Malformed::NotJson), "{none}");
    }
    assert_eq!(kind("[]"), Err(Malformed::Batch));
}

#[test]
fn a_message_of_a_batch_keeps_no_other_in_memory() {
    let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(1 << 20));
    let batch = Bytes::from(format!(r#"[{{"method":"a"}}, {long} ,7,{{"id":1,"method":"b"}}]"#));
    let messages: Vec<_> = Message::batch(&batch).collect();
    assert_eq!(messages.len(), 4);
    assert!(matches!(messages[2], Err(Malformed::NotAMessage)));
    let of_batch = batch.as_ptr_range();
    for (message, shares) in [(&messages[0], false), (&messages[1], true), (&messages[3], false)] {
        let line = &message.as_ref().expect("a message").line;
        assert_eq!(of_batch.contains(&line.as_ptr()), shares, "{} bytes", line.len());
    }
}

#[test]
fn line_ends_between_tokens_become_blanks() {
    let message = parse("\r\n{\n \"id\": 1,\r\n \"method\": \"a\\nb\"\n}\n").expect("a message");
    assert!(!message.line.contains(&b'\n') && !message.line.contains(&b'\r'));
    assert_eq!(message.kind, Kind::Request("a\nb".into()));
}
