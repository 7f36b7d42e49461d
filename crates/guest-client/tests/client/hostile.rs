//! A guest that is not ours: what it sends is bounded in size and time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_budget::Budget;
use emergent_guest_client::{Guest, GuestCallError, Open, new_call_id};
use emergent_guest_proto::{
    ExecutionId, RunAs,
    files::PathQuery,
    tools::{BashRequest, GitAction, GitRequest, GrepRequest, ReadRequest},
};
use emergent_provider::{ByteStream, ChannelError};
use futures::{StreamExt as _, stream};
use http::StatusCode;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout},
};

use crate::{
    calls::glob,
    peer::{Asked, Peer, raw, streamed},
};

fn is_nonsense<T: std::fmt::Debug>(answer: Result<T, GuestCallError>) {
    assert!(matches!(answer, Err(GuestCallError::Nonsense(_))), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_off() {
    let peer = Peer::new(async |_| streamed(stream::repeat(Bytes::from(vec![b' '; 1 << 20]))));
    is_nonsense(peer.guest().glob(&glob()).await);
}

#[tokio::test]
async fn an_answer_that_is_rubbish_is_nonsense() {
    for status in [200, 204, 404, 500] {
        let peer = Peer::new(move |_| async move { raw(StatusCode::from_u16(status).unwrap(), "rubbish") });
        is_nonsense(peer.guest().glob(&glob()).await);
    }
}

#[tokio::test]
async fn headers_without_end_are_an_error() {
    let peer = Peer::new(async |_: Asked| {
        let mut answer = raw(StatusCode::OK, "{}");
        for number in 0..2_000 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            answer.headers_mut().insert(name, "a".repeat(64).parse().unwrap());
        }
        answer
    });
    let answer = timeout(Duration::from_secs(20), peer.guest().glob(&glob())).await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_a_timeout() {
    let peer = Peer::new(async |_| std::future::pending().await);
    let started = Instant::now();
    let error = peer.guest().glob(&glob()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Timeout { .. }), "{error:?}");
    assert_eq!(started.elapsed().as_secs(), 120);

    let started = Instant::now();
    let request = BashRequest { command: "x".to_owned(), timeout_ms: Some(3_000), ..BashRequest::default() };
    let error = peer.guest().bash(request).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Timeout { execution_id: Some(_), .. }), "{error:?}");
    assert_eq!(started.elapsed().as_secs(), 18);
}

/// A stream on which something else than a guest is.
struct Stranger(&'static [u8]);

#[async_trait]
impl Open for Stranger {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let says = self.0;
        tokio::spawn(async move {
            drop(theirs.write_all(says).await);
            std::future::pending::<()>().await;
        });
        Ok(Box::new(ours))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_guest_is_unreachable_after_ten_seconds() {
    for says in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n\r\n", &[0xff; 512]] {
        let started = Instant::now();
        let error = Guest::new(Arc::new(Stranger(says)), None).hello().await.unwrap_err();
        assert!(!error.may_have_happened(), "{error:?}");
        assert!(started.elapsed() <= Duration::from_secs(11), "{:?}", started.elapsed());
    }
}

/// Every call whose answer is read into memory, how it ended, and how many bytes were sent for it.
async fn every_answer(guest: &Guest, sent: &AtomicUsize) -> Vec<(&'static str, Result<(), GuestCallError>, usize)> {
    let sent = || sent.load(Ordering::SeqCst);
    let path = || "x".parse().unwrap();
    let query = PathQuery { path: path(), user: RunAs::Agent };
    let read = ReadRequest { file_path: path(), offset: None, limit: None, byte_offset: None };
    let grep = GrepRequest {
        pattern: "x".to_owned(),
        path: None,
        include: None,
        no_ignore: false,
        ignore_case: false,
        limit: None,
    };
    let git = GitRequest { path: None, action: GitAction::Status {} };
    let bash = || BashRequest { command: "x".to_owned(), ..BashRequest::default() };
    let execution = ExecutionId::new("x").unwrap();
    vec![
        ("hello", guest.hello().await.map(drop), sent()),
        ("usage", guest.usage().await.map(drop), sent()),
        ("read", guest.read(&read).await.map(drop), sent()),
        ("glob", guest.glob(&glob()).await.map(drop), sent()),
        ("grep", guest.grep(&grep).await.map(drop), sent()),
        ("git", guest.git(&new_call_id(), &git).await.map(drop), sent()),
        ("bash", guest.bash(bash()).await.map(drop), sent()),
        ("wait", guest.wait(&execution).await.map(drop), sent()),
        ("execution", guest.execution(&execution).await.map(drop), sent()),
        ("executions", guest.executions().await.map(drop), sent()),
        ("stat", guest.stat(&query).await.map(drop), sent()),
        ("list", guest.list_files(&query).await.map(drop), sent()),
        ("children", guest.children().await.map(drop), sent()),
    ]
}

/// Returns the number of bytes of an endless answer that each call takes before it gives up.
async fn taken(piece: &'static str) -> Vec<(&'static str, usize)> {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let peer = Peer::new(move |_| {
        let counter = Arc::clone(&counter);
        counter.store(0, Ordering::SeqCst);
        async move {
            let piece = Bytes::from(piece.repeat(4096));
            streamed(stream::repeat(piece).inspect(move |piece| _ = counter.fetch_add(piece.len(), Ordering::SeqCst)))
        }
    });
    let guest = peer.guest();
    let mut taken = Vec::new();
    for (call, ended, bytes) in every_answer(&guest, &sent).await {
        assert!(matches!(ended, Err(GuestCallError::Nonsense(_))), "{call}: {ended:?}");
        taken.push((call, bytes));
    }
    taken
}

#[tokio::test]
async fn an_answer_of_many_small_values_is_given_up_before_anything_is_made_of_it() {
    for (call, bytes) in taken(r#""a","#).await {
        // Each value would take tens of bytes; what is on its way when the call gives up is a window or two.
        assert!(bytes < 3 << 20, "{call} took {bytes} bytes");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_what_its_call_may_have() {
    for (call, bytes) in taken("aaaaaaaaaaaaaaaa").await {
        assert!(bytes < 36 << 20, "{call} took {bytes} bytes");
        let few = ["hello", "usage", "execution", "stat", "bash", "wait"].contains(&call);
        assert!(!few || bytes < 4 << 20, "{call} took {bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_held_on_the_account_of_the_request_and_no_more_than_it_may_have() {
    let peer = Peer::new(async |_| raw(StatusCode::OK, "x".repeat(64 << 10)));
    let budget = Budget::undivided(1 << 20);
    let hog = budget.account();
    hog.try_hold(1 << 20).unwrap();
    let refused = budget.account().scope(peer.guest().glob(&glob())).await;
    assert!(matches!(refused, Err(GuestCallError::Exhausted(_))), "{refused:?}");
    drop(hog);
    let account = budget.account();
    is_nonsense(account.clone().scope(peer.guest().glob(&glob())).await);
    assert!(budget.held() >= 2 * (64 << 10), "{}", budget.held());
    drop(account);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn a_tunnel_has_room_for_what_it_may_have_in_memory() {
    let peer = Peer::new(async |_| raw(StatusCode::OK, String::new()));
    let budget = Budget::undivided(1 << 20);
    let tunnel = budget.account().scope(peer.guest().tunnel(80)).await.unwrap();
    assert_eq!(budget.held(), 320 << 10);
    drop(tunnel);
    assert_eq!(budget.held(), 0);
    let hog = budget.account();
    hog.try_hold(1 << 20).unwrap();
    tokio::time::pause();
    let refused = budget.account().scope(peer.guest().tunnel(80)).await;
    assert!(matches!(refused, Err(GuestCallError::Exhausted(_))));
}
