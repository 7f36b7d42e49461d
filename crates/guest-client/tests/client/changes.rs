//! Changes: whatever breaks, each happens once or never, and the answer says which.

use std::io;

use bytes::Bytes;
use emergent_guest_client::{GuestCallError, Interruption, OpenError, new_call_id};
use emergent_guest_proto::{
    CALLS_SINCE, CallOutcome, ErrorCode, GuestError, RunAs, files::UploadQuery, tools::WriteResult,
};
use futures::stream;

use crate::{
    calls::write,
    peer::{Answer, Asked, Peer, json, refuse},
};

const WRITE: &str = "POST /v1/tools/write";

fn written() -> Answer {
    json(&WriteResult { file_path: "f".parse().unwrap(), bytes_written: 0, created: true, sha256: None })
}

#[tokio::test]
async fn a_change_whose_connection_breaks_is_sent_again_under_its_name() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.connection {
            0 => {
                assert!(!asked.again);
                asked.cut().await
            }
            1 => asked.cut().await,
            _ => {
                assert!(asked.again);
                written()
            }
        }
    });
    peer.guest().write(&new_call_id(), &write()).await.unwrap();
    assert_eq!(peer.times(WRITE), 3);
}

#[tokio::test]
async fn a_change_that_a_restart_may_have_ended_is_not_sent_again() {
    let peer = Peer::new(|asked: Asked| async move { asked.cut().await })
        .booting(|connection| if connection == 0 { "before" } else { "after" });
    let id = new_call_id();
    let error = peer.guest().write(&id, &write()).await.unwrap_err();
    assert!(error.may_have_happened() && error.to_string().contains(id.as_str()), "{error}");
    assert!(matches!(error, GuestCallError::Interrupted { source: Interruption::Restarted, .. }), "{error:?}");
    assert_eq!(peer.times(WRITE), 1);
}

#[tokio::test]
async fn a_guest_that_knows_no_names_gets_a_change_once() {
    let peer = Peer::new(|asked: Asked| async move { asked.cut().await }).speaking(CALLS_SINCE - 1);
    let error = peer.guest().write(&new_call_id(), &write()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Interrupted { .. }), "{error:?}");
    assert_eq!(peer.times(WRITE), 1);
}

#[tokio::test]
async fn a_guest_that_always_breaks_is_given_up() {
    let peer = Peer::new(|asked: Asked| async move { asked.cut().await });
    let error = peer.guest().write(&new_call_id(), &write()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Interrupted { call_id: Some(_), .. }), "{error:?}");
    assert!(peer.times(WRITE) < 20, "{}", peer.times(WRITE));
}

/// An upload that breaks off, when the guest then says this of it.
async fn broken_upload(outcome: fn() -> Answer) -> Result<(), GuestCallError> {
    let peer = Peer::new(move |asked: Asked| async move {
        match asked.what.as_str() {
            "PUT /v1/files/content" => std::future::pending().await,
            _ => outcome(),
        }
    });
    let target = UploadQuery { path: "f".parse().unwrap(), mode: None, user: RunAs::Agent, expected_sha256: None };
    let source = stream::iter([Ok(Bytes::from_static(b"abc")), Err(io::Error::other("the caller went away"))]);
    peer.guest().upload(&new_call_id(), &target, source).await.map(drop)
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_what_the_guest_says_of_it() {
    let not_begun = broken_upload(|| json(&CallOutcome::NotBegun { known_for_ms: 60_000 })).await.unwrap_err();
    assert!(
        matches!(&not_begun, GuestCallError::Unreachable(why) if matches!(**why, OpenError::Broke)),
        "{not_begun:?}"
    );
    let refused = broken_upload(|| {
        json(&CallOutcome::Refused { error: GuestError::new(ErrorCode::DiskFull, "no space is left") })
    });
    let refused = refused.await.unwrap_err();
    assert!(matches!(&refused, GuestCallError::Refused(error) if error.code == ErrorCode::DiskFull), "{refused:?}");
    // A guest that has not known all calls for long enough, and one that knows none, cannot tell.
    for outcome in [|| json(&CallOutcome::NotBegun { known_for_ms: 0 }), || refuse(ErrorCode::Unsupported)] {
        let error = broken_upload(outcome).await.unwrap_err();
        assert!(matches!(error, GuestCallError::Interrupted { call_id: Some(_), .. }), "{error:?}");
    }
}
