//! Tests of the corrections that a new process makes to the state that an earlier process left.

use emergent_core::{StateKind, WorkspaceId, WorkspaceState};
use emergent_provider::{EngineState, ExitReason};
use std::time::SystemTime;

use crate::{
    engine::long_ago,
    support::{Fixture, eventually},
};

#[tokio::test]
async fn live_workspaces_answer_at_once() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let fixture = fixture.restart().await;
    fixture.service.guest(fixture.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    fixture.reconciled().await;
    assert_eq!(fixture.engine.count("start"), 0);
}

#[tokio::test]
async fn paused_and_stopped_ones_stay_so() {
    let fixture = Fixture::start().await;
    let (paused, stopped) = (fixture.ready().await, fixture.ready().await);
    fixture.service.pause(fixture.project, paused).await.unwrap();
    fixture.service.stop(fixture.project, stopped).await.unwrap();
    let fixture = fixture.restart().await;
    fixture.reconciled().await;
    assert_eq!(fixture.get(paused).await.row.state, WorkspaceState::Paused);
    assert_eq!(fixture.get(stopped).await.row.state, WorkspaceState::Stopped);
    fixture.service.resume(fixture.project, paused).await.unwrap();
    fixture.service.guest(fixture.project, paused).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn what_was_done_behind_its_back_is_seen() {
    let fixture = Fixture::start().await;
    let mut cases = Vec::new();
    for (state, word) in [
        (Some(EngineState::Paused), StateKind::Paused),
        (Some(EngineState::Exited(ExitReason::Code(137))), StateKind::Error),
        (Some(EngineState::Exited(ExitReason::OutOfMemory)), StateKind::Error),
        (Some(EngineState::Remains), StateKind::Error),
        (None, StateKind::Error),
    ] {
        let id = fixture.ready().await;
        cases.push((id, state, word));
    }
    let (engine, store) = (fixture.engine.clone(), fixture.store.clone());
    fixture.service.shutdown().await;
    for (id, state, _) in &cases {
        engine.touch_silently(*id, state.clone());
    }
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::start_in(directory, crate::support::config(), store, engine).await;
    fixture.reconciled().await;
    for (id, state, word) in cases {
        assert_eq!(fixture.get(id).await.row.state.word(), word, "{state:?}");
    }
}

#[tokio::test]
async fn orphans_go_and_what_is_younger_than_the_server_is_given_time() {
    let fixture = Fixture::start().await;
    let soon = SystemTime::now() + std::time::Duration::from_secs(30);
    let (old, young) = (fixture.engine.stray(long_ago()), fixture.engine.stray(soon));
    let live = fixture.ready().await;
    let fixture = fixture.restart().await;
    fixture.reconciled().await;
    assert_eq!(fixture.engine.state(old), None);
    assert_eq!(fixture.engine.sandboxes(), [live, young].into());
}

#[tokio::test]
async fn another_servers_sandboxes_are_left_alone() {
    let fixture = Fixture::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = crate::support::store_and_engine(directory.path()).await;
    let stray: WorkspaceId = fixture.engine.stray(long_ago());
    let other = Fixture::start_in(directory, crate::support::config(), store, fixture.engine.clone()).await;
    other.reconciled().await;
    eventually("the other has listed", async || fixture.engine.count("list") >= 2).await;
    assert!(other.engine.state(stray).is_some());
}
