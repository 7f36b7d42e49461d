//! Tests of the audit rows of workspaces' lives, and of the report of lost rows.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use emergent_core::{
    Actor, AuditConfig, AuditFilter, AuditId, AuditKind, AuditOutcome, AuditRow, CoreConfig, NewWorkspace, Origin,
    ProjectId, StateKind, TokenId, Ttl,
};
use emergent_provider::{EngineState, ExitReason};
use emergent_store::DatabaseUrl;
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::Map;

use crate::support::{Fixture, config, eventually};

fn a_row(project: ProjectId) -> AuditRow {
    AuditRow {
        id: AuditId::generate(),
        project,
        workspace: None,
        at: Utc::now(),
        actor: Actor::Server,
        session: None,
        kind: AuditKind::Tool,
        action: "bash".to_owned(),
        outcome: AuditOutcome::Ok,
        problem: None,
        duration_ms: 1,
        arguments: Map::new(),
        bytes_in: 0,
        bytes_out: 0,
        request_id: None,
    }
}

/// Returns the recorded steps, each as `action outcome`, once the list ends with this step.
async fn told_until(fixture: &Fixture, last: &str) -> Vec<String> {
    let words = async || {
        let rows = fixture.told(AuditFilter::default()).await;
        rows.iter().map(|row| format!("{} {}", row.action, row.outcome)).collect::<Vec<_>>()
    };
    eventually(last, async || words().await.last().is_some_and(|word| word == last)).await;
    words().await
}

#[tokio::test]
async fn every_step_is_told_once_with_who_asked_for_it() {
    let fixture = Fixture::start().await;
    let (service, project) = (&fixture.service, fixture.project);
    let token = TokenId::generate();
    let origin = Origin::request(Some("request".to_owned()), Some("session".to_owned()));
    origin.is_by(token);
    let id = origin
        .scope(async {
            let id = fixture.ready().await;
            service.pause(project, id).await.unwrap();
            service.resume(project, id).await.unwrap();
            service.stop(project, id).await.unwrap();
            service.pause(project, id).await.unwrap_err();
            service.destroy(project, id).await.unwrap();
            id
        })
        .await;
    let told = told_until(&fixture, "destroy ok").await;
    assert_eq!(told, ["create ok", "ready ok", "pause ok", "resume ok", "stop ok", "pause refused", "destroy ok"]);
    for row in fixture.told(AuditFilter::default()).await {
        assert_eq!((row.workspace, row.actor), (Some(id), Actor::Token(token)), "{row:?}");
        assert_eq!((row.request_id.as_deref(), row.session.as_deref()), (Some("request"), Some("session")));
        assert_eq!(row.problem.as_deref(), (row.outcome == AuditOutcome::Refused).then_some("wrong-state"));
        let reason = row.arguments.get("reason").and_then(|reason| reason.as_str());
        assert_eq!(reason, (row.action == "destroy").then_some("requested"));
    }
}

#[tokio::test]
async fn what_happens_by_itself_is_told_of_the_server() {
    let fixture = Fixture::start().await;
    let brief = NewWorkspace { ttl: Some(Ttl::After(Duration::from_secs(5))), ..NewWorkspace::default() };
    let id = fixture.service.create(fixture.project, brief, None).await.unwrap().row.id;
    fixture.becomes(id, StateKind::Ready).await;
    fixture.engine.touch(id, Some(EngineState::Exited(ExitReason::Code(137))));
    fixture.becomes(id, StateKind::Error).await;
    fixture.service.guest(fixture.project, id).await.unwrap();
    let told = told_until(&fixture, "destroy ok").await;
    assert_eq!(told, ["create ok", "ready ok", "killed failed", "restarted ok", "destroy ok"]);
    let rows = fixture.told(AuditFilter { action: Some("destroy".to_owned()), ..AuditFilter::default() }).await;
    assert_eq!((rows[0].actor, &rows[0].arguments["reason"]), (Actor::Server, &"expired".into()));
}

#[tokio::test]
async fn a_create_that_fails_says_why() {
    let fixture = Fixture::start().await;
    fixture.engine.refuse("create.image_present");
    let id = fixture.service.create(fixture.project, NewWorkspace::default(), None).await.unwrap().row.id;
    fixture.becomes(id, StateKind::Error).await;
    assert_eq!(told_until(&fixture, "failed failed").await, ["create ok", "failed failed"]);
    let rows = fixture.told(AuditFilter { outcome: Some(AuditOutcome::Failed), ..AuditFilter::default() }).await;
    assert_eq!(rows[0].problem.as_deref(), Some("create_failed"));
}

#[tokio::test]
async fn a_shutdown_loses_nothing() {
    let fixture = Fixture::start().await;
    for _ in 0..3_000 {
        fixture.service.audit().record(a_row(fixture.project));
    }
    fixture.service.shutdown().await;
    assert_eq!(count(&fixture, "action = 'bash'").await, 3_000);
    assert_eq!(count(&fixture, "action = 'audit_lost'").await, 0);
}

#[tokio::test]
async fn a_flood_while_the_store_is_locked_stays_bounded_and_says_what_was_lost() {
    const FLOOD: u64 = 30_000;
    let fixture = Fixture::start().await;
    let url = DatabaseUrl::sqlite(fixture.database()).to_string().replace("sqlite://", "sqlite:");
    let other = Database::connect(url).await.unwrap();
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    for _ in 0..FLOOD {
        fixture.service.audit().record(a_row(fixture.project));
        if fixture.service.audit().waiting() % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(fixture.service.audit().waiting() <= 8_192, "{}", fixture.service.audit().waiting());
    other.execute_unprepared("COMMIT").await.unwrap();
    let lost = AuditFilter { action: Some("audit_lost".to_owned()), ..AuditFilter::default() };
    eventually("the loss is told", async || !fixture.told(lost.clone()).await.is_empty()).await;
    fixture.service.shutdown().await;
    let rows = fixture.told(lost).await;
    let lost: u64 = rows.iter().map(|row| row.arguments["lost_rows"].as_u64().unwrap()).sum();
    assert!(lost >= FLOOD - 8_192 - 1_000, "{lost}");
    assert_eq!(count(&fixture, "action = 'bash'").await + lost, FLOOD);
}

#[tokio::test]
async fn what_is_older_than_its_retention_goes_and_the_rest_stays() {
    let day = Duration::from_secs(24 * 60 * 60);
    let config = CoreConfig { audit: AuditConfig { retention: day, ..AuditConfig::default() }, ..config() };
    let fixture = Fixture::start_with(config).await;
    for hours in [48, 25, 23, 0] {
        let row = AuditRow { at: Utc::now() - TimeDelta::hours(hours), ..a_row(fixture.project) };
        fixture.store.audit_append(&[row]).await.unwrap();
    }
    eventually("the old ones are gone", async || fixture.told(AuditFilter::default()).await.len() == 2).await;
}

#[tokio::test]
async fn a_project_keeps_its_newest_rows_and_no_more_than_it_may_have() {
    let config = CoreConfig { audit: AuditConfig { most_rows: 1_000, ..AuditConfig::default() }, ..config() };
    let fixture = Fixture::start_with(config).await;
    let other = fixture.store.projects_ensure("other").await.unwrap();
    let (loud, quiet) = (vec![fixture.project; 2_345], vec![other; 900]);
    for (age, project) in loud.into_iter().chain(quiet).enumerate() {
        let at = Utc::now() - TimeDelta::seconds(age.try_into().unwrap());
        let action = if age < 1_000 { "new" } else { "old" };
        fixture.service.audit().record(AuditRow { at, action: action.to_owned(), ..a_row(project) });
        if age % 1_000 == 0 {
            eventually("the queue is empty", async || fixture.service.audit().waiting() == 0).await;
        }
    }
    let of = |project| format!("hex(project_id) = '{:X}'", emergent_store::ProjectId::as_uuid(project).simple());
    eventually("the rest is gone", async || {
        count(&fixture, &of(fixture.project)).await == 1_000 && count(&fixture, &of(other)).await == 900
    })
    .await;
    assert_eq!(count(&fixture, &format!("{} AND action = 'new'", of(fixture.project))).await, 1_000);
}

async fn count(fixture: &Fixture, which: &str) -> u64 {
    let url = DatabaseUrl::sqlite(fixture.database()).to_string().replace("sqlite://", "sqlite:");
    let database = Database::connect(url).await.unwrap();
    let sql = format!("SELECT COUNT(*) AS rows FROM workspace_audit WHERE {which}");
    let row = database.query_one_raw(sea_orm::Statement::from_string(database.get_database_backend(), sql)).await;
    row.unwrap().unwrap().try_get::<i64>("", "rows").unwrap().try_into().unwrap()
}
