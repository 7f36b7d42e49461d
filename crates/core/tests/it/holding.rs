//! A copy of a server's rows does nothing to the server's sandboxes, and what no row knows is kept.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use emergent_core::{
    AdoptRequest, Adopted, CoreConfig, HeldProvider, HoldError, LeftoverError, LeftoverKind, NewSnapshot, StateKind,
    TakeOver, WorkspaceState, Workspaces,
};
use emergent_provider::{EngineState, Holder, Holders as _, Lifecycle as _, Provider, Snapshots as _};
use emergent_store::{DatabaseUrl, Store};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{Fixture, config, eventually};

/// The process of a data directory.
fn holder(directory: &str) -> Holder {
    Holder {
        directory: directory.to_owned(),
        boot: "boot".to_owned(),
        device: "8".to_owned(),
        process: Uuid::new_v4(),
        host: "host".to_owned(),
        path: format!("/srv/{directory}"),
    }
}

fn held(fixture: &Fixture, holder: &Holder) -> Arc<HeldProvider> {
    let engine: Arc<dyn Provider> = Arc::new(fixture.engine.clone());
    Arc::new(HeldProvider::new(engine, fixture.store.server_id(), holder.clone()))
}

/// A copy of the rows as they are now.
async fn copied_rows(fixture: &Fixture) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("rows.db");
    emergent_store::backup(&DatabaseUrl::sqlite(fixture.database()), &copy).await.unwrap();
    let store = Store::open(&DatabaseUrl::sqlite(copy)).await.unwrap();
    (directory, store)
}

async fn service(store: &Store, provider: Arc<HeldProvider>, config: CoreConfig) -> Workspaces {
    Workspaces::start(config, store.clone(), vec![provider as Arc<dyn Provider>]).await.unwrap()
}

#[tokio::test]
async fn a_started_copy_of_the_rows_touches_nothing_of_the_originals() {
    let fixture = Fixture::start().await;
    let (_directory, copy) = copied_rows(&fixture).await;
    let original = held(&fixture, &holder("original"));
    original.claim(TakeOver::Refused).await.unwrap();
    let (id, other) = (fixture.ready().await, fixture.ready().await);
    let taken =
        fixture.service.snapshots().take(fixture.project, id, NewSnapshot::default(), None).await.unwrap().new.id;
    fixture.service.snapshots().wait_ready(fixture.project, taken, Duration::from_secs(20)).await.unwrap();
    fixture.service.stop(fixture.project, other).await.unwrap();

    let second = held(&fixture, &holder("copy"));
    let refused = second.claim(TakeOver::Refused).await;
    let Err(HoldError::NotHolder(to)) = &refused else { panic!("{refused:?}") };
    let message = to.to_string();
    assert!(["/srv/original", "--take-over", "--new-identity"].iter().all(|word| message.contains(word)), "{message}");
    // Even if it had started, before the engine could say: it gets nowhere.
    let second = held(&fixture, &holder("copy"));
    let service = service(&copy, Arc::clone(&second), config()).await;
    eventually("it has asked the engine", async || second.health().await.message.contains("/srv/original")).await;
    assert!(second.list_snapshots().await.is_err());
    assert!(second.stop(id).await.is_err());
    service.shutdown().await;
    assert_eq!(fixture.engine.state(id), Some(EngineState::Running));
    assert!(fixture.engine.state(other).is_some() && fixture.engine.snapshots().contains(&taken));
    original.hold().await.unwrap();
}

#[tokio::test]
async fn a_copy_takes_over_when_it_is_told_to_and_the_original_then_does_nothing_more() {
    let fixture = Fixture::start().await;
    let original = held(&fixture, &holder("original"));
    original.claim(TakeOver::Refused).await.unwrap();
    original.end().await;
    let copy = held(&fixture, &holder("copy"));
    copy.claim(TakeOver::Wanted).await.unwrap();
    assert!(copy.is_known().await.unwrap());
    let again = held(&fixture, &holder("original"));
    assert!(matches!(again.claim(TakeOver::Refused).await, Err(HoldError::NotHolder(_))));
    // One that slept meanwhile finds out at its next beat.
    assert!(original.hold().await.is_err());
    assert!(original.list_snapshots().await.is_err());
}

#[tokio::test]
async fn the_record_goes_with_the_last_thing_that_a_server_has() {
    let fixture = Fixture::start().await;
    let id = fixture.ready().await;
    let server = held(&fixture, &holder("original"));
    server.claim(TakeOver::Refused).await.unwrap();
    server.end().await;
    let kept = fixture.engine.holders().await.unwrap();
    assert!(matches!(kept.as_slice(), [record] if record.ended), "{kept:?}");

    let again = held(&fixture, &holder("original"));
    again.claim(TakeOver::Refused).await.unwrap();
    fixture.service.destroy(fixture.project, id).await.unwrap();
    again.end().await;
    assert_eq!(fixture.engine.holders().await.unwrap(), []);
}

#[tokio::test]
async fn a_restart_in_the_same_directory_goes_on_at_once() {
    let fixture = Fixture::start().await;
    held(&fixture, &holder("original")).claim(TakeOver::Refused).await.unwrap();
    held(&fixture, &holder("original")).claim(TakeOver::Refused).await.unwrap();
}

#[tokio::test]
async fn what_a_restored_backup_does_not_know_is_put_aside_and_can_be_adopted() {
    let fixture = Fixture::start().await;
    let (directory, copy) = copied_rows(&fixture).await;
    let id = fixture.ready().await;
    let taken =
        fixture.service.snapshots().take(fixture.project, id, NewSnapshot::default(), None).await.unwrap().new.id;
    fixture.service.snapshots().wait_ready(fixture.project, taken, Duration::from_secs(20)).await.unwrap();
    fixture.service.shutdown().await;

    let engine = fixture.engine.clone();
    // The engine says of every snapshot that it is new.
    let config = CoreConfig { orphan_grace: TimeDelta::zero(), ..config() };
    let restored = Fixture::start_in(directory, config, copy, engine).await;
    eventually("both are put aside", async || restored.service.leftovers().list().await.unwrap().len() == 2).await;
    eventually("the workspace is stopped", async || matches!(restored.engine.state(id), Some(EngineState::Exited(_))))
        .await;
    assert!(restored.engine.snapshots().contains(&taken));
    let kinds = restored.service.leftovers().list().await.unwrap().into_iter().map(|row| (row.id, row.kind));
    let kinds = kinds.collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(kinds.get(&id.as_uuid()), Some(&LeftoverKind::Workspace));
    assert_eq!(kinds.get(&taken.as_uuid()), Some(&LeftoverKind::Snapshot));

    let request = || AdoptRequest { project: restored.project, name: Some("found".to_owned()) };
    let adopted = restored.service.leftovers().adopt(id.as_uuid(), request()).await.unwrap();
    assert_eq!(adopted, Adopted::Workspace(id));
    let again = restored.service.leftovers().adopt(id.as_uuid(), request()).await;
    assert!(matches!(again, Err(LeftoverError::NotFound)), "{again:?}");
    assert_eq!(restored.get(id).await.row.state, WorkspaceState::Stopped);
    restored.service.resume(restored.project, id).await.unwrap();
    restored.service.guest(restored.project, id).await.unwrap().call(|guest| guest.hello()).await.unwrap();

    let adopted = restored.service.leftovers().adopt(taken.as_uuid(), request()).await.unwrap();
    assert_eq!(adopted, Adopted::Snapshot(taken));
    let request = emergent_core::NewWorkspace { snapshot: Some(taken), ..Default::default() };
    let made = restored.service.create(restored.project, request, None).await.unwrap().row.id;
    restored.becomes(made, StateKind::Ready).await;
    assert!(restored.service.leftovers().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_leftover_goes_when_its_time_is_up_or_somebody_asks() {
    let fixture = Fixture::start().await;
    let (directory, copy) = copied_rows(&fixture).await;
    let (id, other) = (fixture.ready().await, fixture.ready().await);
    fixture.service.shutdown().await;
    let engine = fixture.engine.clone();
    let restored = Fixture::start_in(directory, config(), copy.clone(), engine.clone()).await;
    eventually("both are put aside", async || restored.service.leftovers().list().await.unwrap().len() == 2).await;
    restored.service.leftovers().remove(other.as_uuid()).await.unwrap();
    assert_eq!(engine.state(other), None);
    restored.service.shutdown().await;
    assert!(engine.state(id).is_some());

    let impatient = CoreConfig { leftover_retention: TimeDelta::zero(), ..config() };
    let directory = tempfile::tempdir().unwrap();
    let later = Fixture::start_in(directory, impatient, copy, engine).await;
    eventually("it is removed", async || later.engine.state(id).is_none()).await;
    eventually("and forgotten", async || later.service.leftovers().list().await.unwrap().is_empty()).await;
}
