//! Following output over what does not end an execution.

use std::time::Duration;

use emergent_core::{CallError, WorkspaceEnd, WorkspaceId};
use emergent_guest_proto::{ExecutionId, execution::OutputQuery, frame::Frame, tools::BashRequest};
use emergent_provider::{EngineState, ExitReason};
use futures::{Stream, StreamExt as _};

use crate::{
    guest::EXECUTION,
    support::{Fixture, eventually},
};

const FROM_START: OutputQuery = OutputQuery { stdout: Some(0), stderr: None, follow: true };

async fn follow(fixture: &Fixture, id: WorkspaceId) -> impl Stream<Item = Result<Frame, CallError>> + use<> {
    let session = fixture.service.guest(fixture.project, id).await.unwrap();
    Box::pin(session.follow_output(ExecutionId::new(EXECUTION).unwrap(), FROM_START))
}

/// Reads until so much has come; fails when anything was missed or repeated.
async fn read(output: &mut (impl Stream<Item = Result<Frame, CallError>> + Unpin), so_far: &mut Vec<u8>, until: usize) {
    while so_far.len() < until {
        let Frame::Data { offset, bytes, .. } = output.next().await.unwrap().unwrap() else { panic!("no data") };
        assert_eq!(offset, so_far.len() as u64);
        so_far.extend_from_slice(&bytes);
    }
}

#[tokio::test]
async fn output_is_followed_to_its_end() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let (guest, mut output) = (fixture.engine.guest(id), follow(&fixture, id).await);
    let mut got = Vec::new();
    guest.write(b"first of all, ");
    read(&mut output, &mut got, 14).await;
    guest.write(b"and last");
    guest.end();
    read(&mut output, &mut got, 22).await;
    assert_eq!(got, b"first of all, and last");
    assert!(matches!(output.next().await, Some(Ok(Frame::Status(_)))));
    assert!(output.next().await.is_none());
}

#[tokio::test]
async fn a_pause_and_cut_channels_lose_nothing() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let (guest, mut output) = (fixture.engine.guest(id), follow(&fixture, id).await);
    let mut got = Vec::new();
    guest.write(b"before the pause, ");
    read(&mut output, &mut got, 18).await;

    service.pause(project, id).await.unwrap();
    guest.cut();
    guest.write(b"while it is paused, ");
    let silent = tokio::time::timeout(Duration::from_millis(100), output.next()).await;
    assert!(silent.is_err(), "nothing comes while it is paused");
    service.resume(project, id).await.unwrap();
    read(&mut output, &mut got, 38).await;

    guest.cut();
    guest.write(b"and after a cut");
    guest.end();
    read(&mut output, &mut got, 53).await;
    assert_eq!(got, b"before the pause, while it is paused, and after a cut");
    assert!(matches!(output.next().await, Some(Ok(Frame::Status(_)))));
}

#[tokio::test]
async fn the_end_of_the_sandbox_ends_the_stream_with_the_reason() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let (guest, mut output) = (fixture.engine.guest(id), follow(&fixture, id).await);
    let mut got = Vec::new();
    guest.write(b"so far so good");
    read(&mut output, &mut got, 14).await;
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(137))));
    let end = output.next().await;
    assert!(matches!(end, Some(Err(CallError::Ended { ending: WorkspaceEnd::Failed(_), .. }))), "{end:?}");
    assert_eq!(fixture.engine.count("start"), 0, "a stream starts nothing");
}

#[tokio::test]
async fn a_command_that_is_waited_for_survives_a_pause_and_runs_once() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let guest = fixture.engine.guest(id);
    let session = service.guest(project, id).await.unwrap();
    let execution = ExecutionId::new(EXECUTION).unwrap();
    let request = BashRequest { command: "write".into(), execution_id: Some(execution.clone()), ..Default::default() };
    let (running, waiting) = (session.clone(), session.clone());
    let mut bash = tokio::spawn(async move { running.bash(request).await });
    let mut wait = tokio::spawn(async move { waiting.wait(&execution).await });
    eventually("the command runs", async || guest.starts() == 1).await;

    service.pause(project, id).await.unwrap();
    guest.cut();
    guest.write(b"done");
    guest.end();
    for call in [&mut bash, &mut wait] {
        let early = tokio::time::timeout(Duration::from_millis(100), call).await;
        assert!(early.is_err(), "nobody is told anything while it is paused: {early:?}");
    }
    service.resume(project, id).await.unwrap();
    for call in [bash, wait] {
        assert_eq!(call.await.unwrap().unwrap().stdout, "done");
    }
    assert_eq!(guest.starts(), 1);
}

#[tokio::test]
async fn a_command_under_a_pause_that_outlasts_its_time_says_how_to_go_on() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let session = service.guest(project, id).await.unwrap();
    let request = BashRequest { command: "write".into(), timeout_ms: Some(200), ..Default::default() };
    let bash = tokio::spawn(async move { session.bash(request).await });
    eventually("the command runs", async || fixture.engine.guest(id).starts() == 1).await;
    service.pause(project, id).await.unwrap();
    let error = bash.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::StillPaused { .. }), "{error:?}");
    assert!(error.to_string().contains("resume it"), "{error}");
}
