//! A guest that is not ours: what it sends is bounded in size and time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_guest_client::{Guest, GuestCallError, Open};
use emergent_guest_proto::tools::BashRequest;
use emergent_provider::{ByteStream, ChannelError};
use futures::stream;
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
