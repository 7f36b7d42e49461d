//! Attaching, letting go, and calls on behalf of a session.

use std::time::Duration;

use emergent_core::{
    AttachError, AttachRequest, CoreConfig, NewWorkspace, PageRequest, SessionEnd, SessionError, SessionId, StateKind,
    TransitionError,
};

use crate::support::{Fixture, config, eventually};

fn by(holder: &str) -> AttachRequest {
    AttachRequest { holder: holder.to_owned(), session: None, lease: None, take_over: false }
}

#[tokio::test]
async fn one_of_many_attaches_and_the_others_are_told_by_whom() {
    let fixture = Fixture::start().await;
    let (project, id) = (fixture.project, fixture.ready().await);
    let attaches = (0..20).map(|index| {
        let service = fixture.service.clone();
        tokio::spawn(async move { service.sessions().attach(project, id, by(&format!("agent {index}"))).await })
    });
    let mut holders = Vec::new();
    let mut told = Vec::new();
    for attach in attaches.collect::<Vec<_>>() {
        match attach.await.unwrap() {
            Ok(session) => holders.push(session.holder),
            Err(AttachError::Held(session)) => told.push(session.holder),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((holders.len(), told.len()), (1, 19));
    assert!(told.iter().all(|holder| *holder == holders[0]));
    assert_eq!(fixture.get(id).await.attached.unwrap().holder, holders[0]);
}

#[tokio::test]
async fn a_call_for_a_session_is_refused_while_another_one_is_attached() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let first = service.sessions().attach(project, id, by("a")).await.unwrap();
    drop(service.sessions().begin_call(project, id, first.id).await.unwrap());
    let second = service.sessions().attach(project, id, AttachRequest { take_over: true, ..by("b") }).await.unwrap();
    let refused = service.sessions().begin_call(project, id, first.id).await.map(drop);
    assert!(matches!(&refused, Err(SessionError::Held(session)) if session.holder == "b"), "{refused:?}");
    drop(service.sessions().begin_call(project, id, second.id).await.unwrap());

    for _ in 0..2 {
        let ended = service.sessions().detach(project, id, second.id).await.unwrap();
        assert_eq!(ended.ended.map(|(_, reason)| reason), Some(SessionEnd::Detached));
    }
    let refused = service.sessions().begin_call(project, id, second.id).await.map(drop);
    assert!(matches!(refused, Err(SessionError::NotAttached)), "{refused:?}");
    let unknown = service.sessions().detach(project, id, SessionId::generate()).await;
    assert!(matches!(unknown, Err(SessionError::NoSuchSession)), "{unknown:?}");
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
}

#[tokio::test]
async fn attaching_gives_a_workspace_that_answers() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    for rest in [StateKind::Stopped, StateKind::Paused] {
        match rest {
            StateKind::Paused => service.pause(project, id).await.unwrap(),
            _ => service.stop(project, id).await.unwrap(),
        };
        let session = service.sessions().attach(project, id, by("a")).await.unwrap();
        service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
        service.sessions().detach(project, id, session.id).await.unwrap();
    }
}

#[tokio::test]
async fn who_cannot_be_given_a_running_workspace_does_not_hold_it() {
    let fixture = Fixture::start_with(CoreConfig { max_concurrent: 1, ..config() }).await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    service.stop(project, id).await.unwrap();
    let other = fixture.ready().await;
    let refused = service.sessions().attach(project, id, by("a")).await;
    assert!(matches!(refused, Err(AttachError::Workspace(TransitionError::LimitReached { .. }))), "{refused:?}");
    assert_eq!(fixture.get(id).await.attached, None);
    service.destroy(project, other).await.unwrap();
    service.sessions().attach(project, id, by("b")).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_is_not_heard_of_loses_the_workspace_and_one_that_calls_keeps_it() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let lease = Some(Duration::from_millis(600));
    let caller = service.sessions().attach(project, id, AttachRequest { lease, ..by("caller") }).await.unwrap();
    let first_end = caller.expires_at.unwrap();
    eventually("the lease is put off twice", async || {
        drop(service.sessions().begin_call(project, id, caller.id).await.unwrap());
        let end = fixture.get(id).await.attached.unwrap().expires_at.unwrap();
        end - first_end > chrono::TimeDelta::milliseconds(600)
    })
    .await;
    eventually("the lease is over", async || fixture.get(id).await.attached.is_none()).await;
    let refused = service.sessions().begin_call(project, id, caller.id).await.map(drop);
    assert!(matches!(refused, Err(SessionError::NotAttached)), "{refused:?}");
    service.sessions().attach(project, id, by("next")).await.unwrap();
    let history = service.sessions().list(project, id, PageRequest::default()).await.unwrap().items;
    let reasons: Vec<_> = history.iter().map(|session| session.ended.map(|(_, reason)| reason)).collect();
    assert_eq!(reasons, [None, Some(SessionEnd::Expired)]);
}

#[tokio::test]
async fn a_call_that_takes_longer_than_the_lease_keeps_the_workspace_until_it_ends() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let lease = Some(Duration::from_millis(300));
    let caller = service.sessions().attach(project, id, AttachRequest { lease, ..by("caller") }).await.unwrap();
    let first_end = caller.expires_at.unwrap();
    let call = service.sessions().begin_call(project, id, caller.id).await.unwrap();
    eventually("three leases have passed", async || {
        chrono::Utc::now() - first_end > chrono::TimeDelta::milliseconds(900)
    })
    .await;
    let refused = service.sessions().attach(project, id, by("next")).await;
    assert!(matches!(refused, Err(AttachError::Held(_))), "{refused:?}");
    drop(call);
    eventually("the lease is over", async || fixture.get(id).await.attached.is_none()).await;
    service.sessions().attach(project, id, by("next")).await.unwrap();
}

#[tokio::test]
async fn the_holder_survives_a_restart_and_ends_with_the_workspace() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let session = fixture.service.sessions().attach(fixture.project, id, by("a")).await.unwrap();
    let fixture = fixture.restart().await;
    fixture.reconciled().await;
    let (service, project) = (&fixture.service, fixture.project);
    drop(service.sessions().begin_call(project, id, session.id).await.unwrap());
    let refused = service.sessions().begin_call(project, id, SessionId::generate()).await.map(drop);
    assert!(matches!(refused, Err(SessionError::Held(_))), "{refused:?}");
    service.destroy(project, id).await.unwrap();
    let history = service.sessions().list(project, id, PageRequest::default()).await.unwrap().items;
    assert_eq!(history[0].ended.map(|(_, reason)| reason), Some(SessionEnd::Destroyed));
    let refused = service.sessions().attach(project, id, by("b")).await;
    assert!(matches!(refused, Err(AttachError::Workspace(TransitionError::WrongState { .. }))), "{refused:?}");
}

#[tokio::test]
async fn nobody_attaches_to_what_is_still_being_made() {
    let fixture = Fixture::start().await;
    fixture.engine.hold("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    let refused = fixture.service.sessions().attach(fixture.project, id, by("a")).await;
    let Err(AttachError::Workspace(TransitionError::WrongState { state: StateKind::Creating, .. })) = refused else {
        panic!("{refused:?}")
    };
    fixture.engine.release("create.image_present");
}
