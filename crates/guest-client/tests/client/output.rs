//! Output is followed across broken connections without a gap or a byte twice.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::{
    ErrorCode, ExecutionState, Outcome, Stream as OutputStream, execution::OutputQuery, frame::Frame,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    executions::execution,
    peer::{Answer, Asked, Peer, raw, refuse, streamed},
};

fn data(stream: OutputStream, offset: u64, bytes: impl Into<Bytes>) -> Bytes {
    Frame::Data { stream, offset, bytes: bytes.into() }.encode().unwrap()
}

fn stdout(offset: u64, bytes: impl Into<Bytes>) -> Bytes {
    data(OutputStream::Stdout, offset, bytes)
}

fn ended() -> Bytes {
    let state = ExecutionState::Ended {
        outcome: Outcome::Exited,
        exit_code: Some(0),
        signal: None,
        duration_ms: 1,
        reason: None,
    };
    Frame::Status(Box::new(execution(state))).encode().unwrap()
}

/// Sends some frames, and breaks the connection once they are received.
fn then_cut(asked: &Asked, frames: Vec<Bytes>) -> Answer {
    let cut = asked.cut_after();
    let breaking = stream::once(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cut.cancel();
        std::future::pending().await
    });
    streamed(stream::iter(frames).chain(breaking))
}

fn follow() -> OutputQuery {
    OutputQuery { stdout: Some(0), stderr: None, follow: true }
}

async fn collect(guest: &Guest) -> Result<(Vec<u8>, bool), GuestCallError> {
    let frames: Vec<_> = guest.output("one".parse().unwrap(), follow()).try_collect().await?;
    let has_ended = matches!(frames.last(), Some(Frame::Status(last)) if last.state.has_ended());
    let bytes = frames.into_iter().filter_map(|frame| match frame {
        Frame::Data { bytes, .. } => Some(bytes),
        Frame::Status(_) | Frame::KeepAlive => None,
    });
    Ok((bytes.flatten().collect(), has_ended))
}

#[tokio::test]
async fn a_broken_stream_goes_on_at_its_offset() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.connection {
            0 => then_cut(&asked, vec![stdout(0, "hello "), stdout(6, "wor"), stdout(9, "ld").slice(..5)]),
            _ => {
                assert_eq!(asked.query, "stdout=9&follow=true");
                // A guest may begin earlier than asked: what is known already is left out.
                streamed(stream::iter([stdout(6, "world"), Frame::KeepAlive.encode().unwrap(), ended()]))
            }
        }
    });
    assert_eq!(collect(&peer.guest()).await.unwrap(), (b"hello world".to_vec(), true));
}

#[tokio::test]
async fn an_answer_without_a_status_is_taken_up_again() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.query.as_str() {
            "stdout=0&follow=true" => streamed(stream::iter([stdout(0, "a")])),
            _ => streamed(stream::iter([stdout(1, "b"), ended()])),
        }
    });
    assert_eq!(collect(&peer.guest()).await.unwrap(), (b"ab".to_vec(), true));
}

#[tokio::test]
async fn long_output_moves_to_the_bulk_connection() {
    const PIECE: usize = 64 * 1024;
    let peer = Peer::new(|asked: Asked| async move {
        let from: u64 = asked.query.split(['=', '&']).nth(1).unwrap().parse().unwrap();
        let pieces = (0..8_u64).map(|piece| piece * PIECE as u64).filter(move |offset| *offset >= from);
        let frames = pieces.map(|offset| stdout(offset, vec![b'x'; PIECE])).chain([ended()]);
        streamed(stream::iter(frames.collect::<Vec<_>>()))
    });
    let (bytes, has_ended) = collect(&peer.guest()).await.unwrap();
    assert_eq!((bytes.len(), has_ended), (8 * PIECE, true));
    assert_eq!(peer.opened(), 2);
}

#[tokio::test]
async fn a_stream_that_never_gets_on_ends_with_the_error() {
    let peer = Peer::new(|asked: Asked| async move { asked.cut().await });
    let error = collect(&peer.guest()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Interrupted { execution_id: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn an_unknown_execution_is_said_to_be_at_once() {
    let peer = Peer::new(async |_| refuse(ErrorCode::UnknownExecution));
    let error = collect(&peer.guest()).await.unwrap_err();
    assert!(matches!(error, GuestCallError::Refused(_)), "{error:?}");
    assert_eq!(peer.times("GET /v1/executions/one/output"), 1);
}

#[tokio::test]
async fn frames_that_no_guest_sends_are_nonsense() {
    let mut too_long = BytesMut::new();
    too_long.put_u8(1);
    too_long.put_u64(0);
    too_long.put_u32(u32::MAX);
    let rubbish = [
        too_long.freeze(),
        Bytes::from_static(&[9; 64]),
        stdout(u64::MAX, "x"),
        data(OutputStream::Stderr, 0, "not asked for"),
    ];
    for frame in rubbish {
        let peer = Peer::new(move |_| {
            let frame = frame.clone();
            async move { raw(http::StatusCode::OK, frame) }
        });
        let error = collect(&peer.guest()).await.unwrap_err();
        assert!(matches!(error, GuestCallError::Nonsense(_)), "{error:?}");
    }
}
