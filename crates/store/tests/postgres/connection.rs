//! The behaviour that only PostgreSQL has: schemas, types, refusals, and recovery.

use std::time::Duration;

use emergent_store::{DatabaseUrl, OpenError, Store};
use emergent_test_postgres::{Cluster, database};
use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement};

#[tokio::test]
async fn tables_are_in_their_schemas_and_columns_have_real_types() {
    let address = database().await.unwrap();
    Store::open(&address.parse().unwrap()).await.unwrap();
    let raw = Database::connect(&address).await.unwrap();
    for (schema, table, column, kind) in [
        ("kb", "agent_workspaces", "id", "uuid"),
        ("kb", "agent_workspaces", "labels", "jsonb"),
        ("kb", "agent_workspaces", "created_at", "timestamp with time zone"),
        ("kb", "agent_workspaces", "starting", "boolean"),
        ("kb", "idempotency_keys", "request_hash", "bytea"),
        ("core", "servers", "id", "uuid"),
        ("core", "projects", "created_at", "timestamp with time zone"),
        ("core", "tokens", "scopes", "jsonb"),
    ] {
        let sql = "SELECT data_type FROM information_schema.columns \
                   WHERE table_schema = $1 AND table_name = $2 AND column_name = $3";
        let ask = Statement::from_sql_and_values(DbBackend::Postgres, sql, [schema, table, column].map(Into::into));
        let row = raw.query_one_raw(ask).await.unwrap();
        let found = row.map(|row| row.try_get_by_index::<String>(0).unwrap());
        assert_eq!(found.as_deref(), Some(kind), "{schema}.{table}.{column}");
    }
    let strays = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    let strays = raw.query_one_raw(Statement::from_string(DbBackend::Postgres, strays)).await.unwrap().unwrap();
    assert_eq!(strays.try_get_by_index::<i64>(0).unwrap(), 0);
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_shows_no_password() {
    let address = database().await.unwrap();
    let missing = address.replace("/test_", "/missing_").replace("postgres@", "postgres:hush@");
    let nobody = "postgres://me:hush@127.0.0.1:9/db".to_owned();
    for (address, advice) in [(missing, "createdb"), (nobody, "check that PostgreSQL runs there")] {
        let Err(error) = Store::open(&address.parse().unwrap()).await.map(drop) else { panic!("{address} opened") };
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_recovers_by_itself_when_the_database_is_back() {
    let cluster = Cluster::start().unwrap();
    let url: DatabaseUrl = cluster.database().await.unwrap().parse().unwrap();
    let store = Store::open(&url).await.unwrap();
    cluster.stop().unwrap();
    let away = tokio::time::timeout(Duration::from_secs(8), store.ping()).await;
    assert!(away.expect("a store does not wait for ever").is_err());
    cluster.start_again().unwrap();
    store.ping().await.unwrap();
    store.projects_ensure("after").await.unwrap();
}
