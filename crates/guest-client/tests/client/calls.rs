//! Connections: opened once, opened again, and what is repeated on the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use emergent_guest_client::{Guest, GuestCallError, Open, OpenError, new_call_id};
use emergent_guest_proto::{
    ErrorCode,
    tools::{GlobRequest, GlobResult, WriteRequest, WriteResult},
};
use emergent_provider::{ByteStream, ChannelError};
use futures::future::join_all;
use tokio::time::Instant;

use crate::peer::{Asked, Peer, hello, json, refuse};

pub(crate) fn glob() -> GlobRequest {
    GlobRequest { pattern: "*".to_owned(), path: None }
}

pub(crate) fn no_files() -> GlobResult {
    GlobResult { files: Vec::new(), truncated: false }
}

pub(crate) fn write() -> WriteRequest {
    WriteRequest { file_path: "f".parse().unwrap(), content: String::new(), expected_sha256: None }
}

#[tokio::test]
async fn calls_at_once_share_one_connection() {
    let peer = Peer::new(async |_| json(&hello("boot")));
    let guest = peer.guest();
    for answer in join_all((0..50).map(|_| guest.hello())).await {
        answer.unwrap();
    }
    assert_eq!(peer.opened(), 1);
}

#[tokio::test]
async fn the_first_channel_is_used_before_another_is_opened() {
    struct Never;
    #[async_trait]
    impl Open for Never {
        async fn open(&self) -> Result<ByteStream, ChannelError> {
            panic!("there is a channel already")
        }
    }
    let peer = Peer::new(async |_| json(&hello("boot")));
    let guest = Guest::new(Arc::new(Never), Some(peer.stream()));
    guest.hello().await.unwrap();
    assert_eq!(guest.last_hello().unwrap().boot_id, "boot");
}

#[tokio::test]
async fn what_is_safe_to_repeat_is_repeated_once() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.connection {
            0 => asked.cut().await,
            _ => json(&no_files()),
        }
    });
    assert_eq!(peer.guest().glob(&glob()).await.unwrap(), no_files());
    assert_eq!((peer.opened(), peer.times("POST /v1/tools/glob")), (2, 2));
}

#[tokio::test]
async fn what_breaks_twice_is_interrupted() {
    let peer = Peer::new(|asked: Asked| async move { asked.cut().await });
    let error = peer.guest().glob(&glob()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Interrupted { .. }), "{error:?}");
    assert_eq!(peer.times("POST /v1/tools/glob"), 2);
}

#[tokio::test]
async fn a_connection_that_broke_while_idle_is_opened_again() {
    let peer = Peer::new(|asked: Asked| async move {
        if asked.what.ends_with("/write") && asked.connection == 0 {
            let cut = asked.cut_after();
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                cut.cancel();
            });
        }
        json(&WriteResult { file_path: "f".parse().unwrap(), bytes_written: 0, created: true, sha256: None })
    });
    let guest = peer.guest();
    drop(guest.write(&new_call_id(), &write()).await);
    // Until the break has been seen a write may be sent into it; it goes to a new connection then.
    guest.write(&new_call_id(), &write()).await.unwrap();
    assert_eq!(peer.opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_open_and_dead_is_found_out_by_ping() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.connection {
            0 => asked.freeze().await,
            _ => json(&no_files()),
        }
    });
    let started = Instant::now();
    assert_eq!(peer.guest().glob(&glob()).await.unwrap(), no_files());
    assert!(started.elapsed() <= Duration::from_secs(21), "{:?}", started.elapsed());
    assert_eq!(peer.opened(), 2);
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_repeated() {
    let peer = Peer::new(async |_| refuse(ErrorCode::NotFound));
    let error = peer.guest().glob(&glob()).await.unwrap_err();
    assert!(matches!(&error, GuestCallError::Refused(refusal) if refusal.code == ErrorCode::NotFound), "{error:?}");
    assert_eq!(peer.times("POST /v1/tools/glob"), 1);
}

#[tokio::test]
async fn suspending_closes_and_the_next_call_opens_again() {
    let peer = Peer::new(async |_| json(&hello("boot")));
    let guest = peer.guest();
    guest.hello().await.unwrap();
    guest.suspend();
    guest.hello().await.unwrap();
    assert_eq!(peer.opened(), 2);
    guest.close();
    let error = guest.hello().await.unwrap_err();
    assert!(matches!(&error, GuestCallError::Unreachable(cause) if matches!(**cause, OpenError::Closed)), "{error:?}");
}

#[tokio::test]
async fn dropping_a_call_leaves_the_connection_to_the_others() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.what.as_str() {
            "POST /v1/tools/glob" => std::future::pending().await,
            _ => json(&hello("boot")),
        }
    });
    let guest = peer.guest();
    guest.hello().await.unwrap();
    let request = glob();
    tokio::select! {
        biased;
        answer = guest.glob(&request) => panic!("{answer:?}"),
        answer = guest.hello() => drop(answer.unwrap()),
    }
    guest.hello().await.unwrap();
    assert_eq!(peer.opened(), 1);
}

struct Refusing {
    error: fn() -> ChannelError,
    tried: AtomicUsize,
}

#[async_trait]
impl Open for Refusing {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        Err((self.error)())
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_refuses_is_asked_again_with_backoff_for_ten_seconds() {
    let error = || ChannelError::Refused { engine: "e".to_owned(), source: "no".into() };
    let opener = Arc::new(Refusing { error, tried: AtomicUsize::new(0) });
    let guest = Guest::new(opener.clone(), None);
    let started = Instant::now();
    let calls = join_all((0..20).map(|_| guest.hello())).await;
    assert!(calls.iter().all(|call| matches!(call, Err(error) if !error.may_have_happened())));
    assert!(started.elapsed() <= Duration::from_secs(11), "{:?}", started.elapsed());
    let tried = opener.tried.load(Ordering::SeqCst);
    assert!((5..=12).contains(&tried), "{tried} attempts for twenty calls");
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_does_not_run_is_said_to_be_at_once() {
    let opener = Arc::new(Refusing { error: || ChannelError::NotRunning, tried: AtomicUsize::new(0) });
    let started = Instant::now();
    let error = Guest::new(opener, None).hello().await.unwrap_err();
    assert!(matches!(error, GuestCallError::Unreachable(_)), "{error:?}");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[test]
fn calls_can_be_made_from_any_thread() {
    fn is_send<T: Send>(_: T) {}
    let peer = Peer::new(async |_| json(&hello("boot")));
    let guest = peer.guest();
    is_send(guest.glob(&glob()));
    is_send(guest.bash(emergent_guest_proto::tools::BashRequest::default()));
    is_send(guest.executions());
}
