//! Changes of a workspace that lives, and why one is destroyed.

use std::{collections::BTreeMap, time::Duration};

use emergent_core::{
    ChangeError, CoreConfig, DestroyReason, Expiry, IdleAction, IdleRequest, NewWorkspace, ProjectId, StateKind, Ttl,
    WorkspaceUpdate,
};

use crate::support::{Fixture, config, eventually};

#[tokio::test]
async fn a_change_sets_what_it_names() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let label = |value: Option<&str>| BTreeMap::from([("team".to_owned(), value.map(str::to_owned))]);
    let update = WorkspaceUpdate {
        name: Some(Some("renamed".to_owned())),
        labels: label(Some("red")),
        expiry: Some(Expiry::Never),
        idle: IdleRequest { action: None, after: Some(Duration::from_secs(5)) },
    };
    let changed = service.update(project, id, update).await.unwrap();
    assert_eq!((changed.row.name.as_deref(), changed.row.expires_at), (Some("renamed"), None));
    assert_eq!(changed.row.labels, BTreeMap::from([("team".to_owned(), "red".to_owned())]));
    assert_eq!((changed.row.idle.action, changed.row.idle.after), (IdleAction::None, Duration::from_secs(5)));
    let update = WorkspaceUpdate { name: Some(None), labels: label(None), ..WorkspaceUpdate::default() };
    let changed = service.update(project, id, update).await.unwrap();
    assert_eq!((changed.row.name, changed.row.labels.len(), changed.row.idle.after), (None, 0, Duration::from_secs(5)));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let before = fixture.get(id).await;
    let named = |name: &str| WorkspaceUpdate { name: Some(Some(name.to_owned())), ..WorkspaceUpdate::default() };
    let labelled = |count: usize| WorkspaceUpdate {
        labels: (0..count).map(|index| (format!("key{index}"), Some(String::new()))).collect(),
        ..named("x")
    };
    let after = IdleRequest { action: None, after: Some(Duration::from_millis(1)) };
    for update in [named("\n"), labelled(65), WorkspaceUpdate { idle: after, ..named("x") }] {
        let refused = service.update(project, id, update).await;
        assert!(matches!(refused, Err(ChangeError::Invalid { .. })), "{refused:?}");
    }
    assert_eq!(fixture.get(id).await, before);
    let stranger = service.update(ProjectId::generate(), id, named("x")).await;
    assert!(matches!(stranger, Err(ChangeError::Lookup(_))), "{stranger:?}");
    service.destroy(project, id).await.unwrap();
    let refused = service.update(project, id, named("x")).await;
    assert!(matches!(refused, Err(ChangeError::Gone { state: StateKind::Destroyed })), "{refused:?}");
}

#[tokio::test]
async fn a_policy_takes_effect_on_a_workspace_that_runs() {
    let fixture = Fixture::start().await;
    let (service, project, id) = (&fixture.service, fixture.project, fixture.ready().await);
    let idle = |action| IdleRequest { action: Some(action), after: Some(Duration::from_secs(1)) };
    let update = |action| WorkspaceUpdate { idle: idle(action), ..WorkspaceUpdate::default() };
    service.update(project, id, update(IdleAction::Pause)).await.unwrap();
    fixture.becomes(id, StateKind::Paused).await;
    service.update(project, id, update(IdleAction::None)).await.unwrap();
    service.guest(project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();
    assert_eq!(fixture.get(id).await.row.state.word(), StateKind::Ready);
}

#[tokio::test]
async fn an_end_that_is_brought_forward_comes_and_one_that_is_put_off_does_not() {
    let fixture = Fixture::start().await;
    let (service, project, short) = (&fixture.service, fixture.project, fixture.ready().await);
    let brief = NewWorkspace { ttl: Some(Ttl::After(Duration::from_secs(2))), ..NewWorkspace::default() };
    let long = service.create(project, brief.clone(), None).await.unwrap().row.id;
    let witness = service.create(project, brief, None).await.unwrap().row.id;
    let expiry = |expiry| WorkspaceUpdate { expiry: Some(expiry), ..WorkspaceUpdate::default() };
    service.update(project, long, expiry(Expiry::FromCreation(Duration::from_secs(60)))).await.unwrap();
    service.update(project, short, expiry(Expiry::FromNow(Duration::ZERO))).await.unwrap();
    for (id, reason) in [(short, DestroyReason::Expired), (witness, DestroyReason::Expired)] {
        assert_eq!(fixture.becomes(id, StateKind::Destroyed).await.row.destroy_reason, Some(reason));
    }
    assert_eq!(fixture.get(long).await.row.state.word(), StateKind::Ready);
    service.destroy(project, long).await.unwrap();
    assert_eq!(fixture.get(long).await.row.destroy_reason, Some(DestroyReason::Requested));
}

#[tokio::test]
async fn the_row_of_a_destroyed_workspace_goes_in_time() {
    let destroyed_retention = chrono::TimeDelta::milliseconds(200);
    let fixture = Fixture::start_with(CoreConfig { destroyed_retention, ..config() }).await;
    let (service, project) = (&fixture.service, fixture.project);
    let (gone, kept) = (fixture.ready().await, fixture.ready().await);
    service.destroy(project, gone).await.unwrap();
    eventually("forgotten", async || service.get(project, gone).await.is_err()).await;
    assert_eq!(fixture.get(kept).await.row.state.word(), StateKind::Ready);
}
