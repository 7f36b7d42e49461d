//! Files come whole or with an error, over a connection of their own.

use std::time::Duration;

use bytes::Bytes;
use emergent_guest_client::{Download, GuestCallError, new_call_id};
use emergent_guest_proto::{
    RunAs,
    files::{FileInfo, FileKind, PathQuery, UploadQuery},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{StatusCode, header};
use tokio::time::Instant;

use crate::peer::{Answer, Asked, Peer, hello, json, raw};

fn path() -> PathQuery {
    PathQuery { path: "f".parse().unwrap(), user: RunAs::Agent }
}

fn target() -> UploadQuery {
    UploadQuery { path: "f".parse().unwrap(), mode: None, user: RunAs::Agent, expected_sha256: None }
}

fn part(range: &'static str, body: &'static str) -> Answer {
    let mut answer = raw(StatusCode::PARTIAL_CONTENT, body);
    answer.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    answer.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    answer
}

async fn contents(download: Download) -> Result<Vec<u8>, GuestCallError> {
    let chunks: Vec<Bytes> = download.body.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn a_range_says_where_it_belongs() {
    let peer = Peer::new(async |_| part("bytes 2-4/10", "cde"));
    let download = peer.guest().download(&path(), Some((2, Some(4)))).await.unwrap();
    assert_eq!((download.offset, download.size, download.total), (2, 3, 10));
    assert_eq!(contents(download).await.unwrap(), b"cde");
}

#[tokio::test]
async fn a_range_that_does_not_fit_its_length_is_nonsense() {
    for range in ["bytes 2-9/10", "bytes 4-2/10", "bytes 8-10/10", "2-4/10", "bytes 0-18446744073709551615/9"] {
        let peer = Peer::new(move |_| async move { part(range, "cde") });
        let answer = peer.guest().download(&path(), Some((2, None))).await;
        assert!(matches!(answer, Err(GuestCallError::Nonsense(_))), "{range}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_ends_with_an_error() {
    let peer = Peer::new(|asked: Asked| async move {
        let cut = asked.cut_after();
        let chunks = stream::iter([Bytes::from_static(b"some")]).chain(stream::once(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            cut.cancel();
            std::future::pending().await
        }));
        let mut answer = crate::peer::streamed(chunks);
        answer.headers_mut().insert(header::CONTENT_LENGTH, 100.into());
        answer
    });
    let download = peer.guest().download(&path(), None).await.unwrap();
    let error = contents(download).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Interrupted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_transfer_does_not_use_the_connection_for_calls() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.what.as_str() {
            "PUT /v1/files/content" => {
                assert_eq!(asked.connection, 1);
                json(&FileInfo {
                    path: "/workspace/f".parse().unwrap(),
                    kind: FileKind::File,
                    size: 3,
                    mode: 0o644,
                    uid: 1000,
                    gid: 1000,
                    modified_at_ms: 0,
                    target: None,
                })
            }
            _ => json(&hello("boot")),
        }
    });
    let guest = peer.guest();
    guest.hello().await.unwrap();
    let info = guest.upload(&new_call_id(), &target(), stream::iter([Ok(Bytes::from_static(b"abc"))])).await.unwrap();
    assert_eq!(info.size, 3);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_the_guest_does_not_take_times_out() {
    let peer = Peer::new(async |_| std::future::pending().await);
    let started = Instant::now();
    let error = peer
        .guest()
        .upload(&new_call_id(), &target(), stream::iter([Ok(Bytes::from_static(b"abc"))]))
        .await
        .unwrap_err();
    assert!(matches!(error, GuestCallError::Timeout { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_take_its_time_with_an_upload() {
    let peer = Peer::new(async |_| raw(StatusCode::NO_CONTENT, ""));
    let slow = stream::iter(0..3).then(|_| async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        Ok(Bytes::from_static(b"abc"))
    });
    peer.guest().archive_upload(&new_call_id(), &path(), slow).await.unwrap();
}
