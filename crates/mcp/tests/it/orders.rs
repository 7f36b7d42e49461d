//! Races that a crash ends, in every order and at every point: clients that begin at once, and answers on their way.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use emergent_mcp::{Bridge, BridgeBody, BridgeConfig, Sharing};
use emergent_test_interleavings::{Who, beginnings};
use futures::{FutureExt as _, poll};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    keeping::Keeper,
    reattach::again,
    support::{Client, Events, bridge_over, fixture, initialize, post, quick, until},
};

/// The number of times that each of two clients is polled: up to its note, up to the keeper's answer, and to its end,
/// if nobody is in its way.
const POLLS: usize = 3;
/// A request that any session takes.
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// Begins a session, and returns its name when that is answered.
async fn begin(bridge: &Arc<Bridge>) -> String {
    let answer = post(bridge, &[], &initialize("test", "2025-11-25")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.headers()["mcp-session-id"].to_str().expect("a name").to_owned()
}

/// Polls a future that has not ended yet.
async fn step(mut future: Pin<&mut impl Future<Output = String>>, ended: &mut Option<String>) {
    if ended.is_none()
        && let Poll::Ready(name) = poll!(&mut future)
    {
        *ended = Some(name);
    }
}

#[tokio::test]
async fn two_that_share_a_child_and_begin_at_once_are_known_after_a_crash_at_any_point_once_they_were_answered() {
    let config = BridgeConfig { sharing: Sharing::Shared, ..quick() };
    let mut both = 0;
    for order in beginnings(POLLS, POLLS) {
        let keeper = Keeper::in_steps(fixture(&[]));
        let first = bridge_over(keeper.clone(), config.clone()).await;
        // The child is there.
        let zero = Client::connect(&first).await.session;
        let (mut one, mut other) = (None, None);
        {
            let (mut begins, mut other_begins) = (pin!(begin(&first)), pin!(begin(&first)));
            for who in &order {
                match who {
                    Who::One => step(begins.as_mut(), &mut one).await,
                    Who::Other => step(other_begins.as_mut(), &mut other).await,
                }
            }
        }
        both += usize::from(one.is_some() && other.is_some());
        first.detach().await;
        drop(first);
        let second = bridge_over(keeper, config.clone()).await;
        for session in [Some(zero), one, other].into_iter().flatten() {
            let answer = post(&second, &[("mcp-session-id", &session)], PING).await;
            assert_eq!(answer.status(), StatusCode::OK, "{order:?}");
        }
        second.shut_down(Duration::from_secs(1)).await;
    }
    assert!(both > 0, "no order was long enough for both to begin");
}

/// Two calls of a session: their answers are let out of the child one after the other, and their client takes those
/// that are there.
struct Calls {
    /// The streams that go on.
    streams: Vec<Option<Events>>,
    /// The event up to which each stream was taken.
    last: Vec<Option<String>>,
    taken: Vec<Value>,
}

impl Calls {
    async fn start(client: &Client) -> Self {
        let (mut streams, mut last) = (Vec::new(), Vec::new());
        for number in [1, 2] {
            let answer: Response<BridgeBody> = client.start(&json!(number), "count", &json!({})).await;
            let mut events = Events::of(answer);
            last.push(events.next().await.expect("a first event").id);
            streams.push(Some(events));
        }
        Self { streams, last, taken: Vec::new() }
    }

    /// Takes the messages that are there.
    fn take(&mut self) {
        for (stream, last) in self.streams.iter_mut().zip(&mut self.last) {
            while let Some(message) = stream.as_mut().and_then(|events| events.next().now_or_never()) {
                let Some(event) = message else {
                    *stream = None;
                    break;
                };
                self.taken.push(serde_json::from_str::<Value>(&event.data).expect("JSON")["id"].take());
                *last = event.id;
            }
        }
    }
}

#[tokio::test]
async fn answer_is_acknowledged_only_when_its_client_has_it_and_found_after_a_crash_at_any_point_if_not() {
    // A stream begins at once, before there is an answer.
    let config = BridgeConfig { json_within: Duration::ZERO, ..quick() };
    for order in beginnings(2, 2) {
        let keeper = Keeper::new(fixture(&[]));
        let first = bridge_over(keeper.clone(), config.clone()).await;
        let client = Client::connect(&first).await;
        // The answer to `initialize`.
        until("the beginning is acknowledged", || async { keeper.acknowledged() == 1 }).await;
        keeper.let_through(1);
        let mut calls = Calls::start(&client).await;
        let mut answers = 0;
        for who in &order {
            match who {
                Who::One => {
                    answers += 1;
                    keeper.let_through(1 + answers);
                    let open = 2 - answers;
                    until("the answer is read", || async {
                        first.status().children.iter().all(|(_, in_flight)| *in_flight == open)
                    })
                    .await;
                }
                Who::Other => {
                    calls.take();
                    let taken = calls.taken.len();
                    until("what was taken is acknowledged", || async { keeper.acknowledged() == 1 + taken }).await;
                }
            }
            assert_eq!(keeper.acknowledged(), 1 + calls.taken.len(), "{order:?}");
        }
        first.detach().await;
        let Calls { streams, last, mut taken } = calls;
        drop((streams, first));
        keeper.let_through(usize::MAX);

        let second = bridge_over(keeper.clone(), config.clone()).await;
        let client = again(&client, &second).await;
        let mut events = client.events(last.last().expect("two streams").as_deref()).await;
        while taken.len() < 2 {
            let message = events.message().await.expect("the answers");
            assert!(!taken.contains(&message["id"]), "{order:?}: {message} came twice");
            taken.push(message["id"].clone());
        }
        second.shut_down(Duration::from_secs(1)).await;
    }
}
