//! The store's rows against the API's, on either kind of database.

use std::collections::BTreeMap;

use anyhow::Context as _;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement};
use serde_json::Value;

use crate::soak::{
    leak::{Finding, Leak},
    testbed::{Store, Subject, Testbed},
};

/// Compares workspaces, snapshots and open sessions.
pub(super) async fn findings(
    testbed: &Testbed,
    subject: &Subject,
    workspaces: &[Value],
    snapshots: &[Value],
) -> anyhow::Result<Vec<Finding>> {
    let address = match subject.store {
        Store::Postgres => testbed.rows.address.clone(),
        Store::Sqlite => {
            let path = subject.server.lock().await.data_dir().join("emergent.sqlite");
            format!("sqlite://{}?mode=ro", path.display())
        }
    };
    let store = Database::connect(address).await.context("opening the store")?;
    let stored = [
        read(&store, subject.store, "id", "agent_workspaces", "state", "state <> 'destroyed'").await,
        // Those that a fork makes for a moment, too, which the API does not show: at rest there is none.
        read(&store, subject.store, "id", "snapshots", "state", "1 = 1").await,
        read(&store, subject.store, "workspace_id", "workspace_sessions", "holder", "ended_at IS NULL").await,
    ];
    store.close().await.ok();
    let attached = workspaces.iter().filter(|row| !row["attached"].is_null());
    let shown = [
        pairs(workspaces.iter().map(|row| (&row["id"], &row["state"]))),
        pairs(snapshots.iter().map(|row| (&row["id"], &row["state"]))),
        pairs(attached.map(|row| (&row["id"], &row["attached"]["holder"]))),
    ];
    let mut findings = Vec::new();
    for ((what, stored), shown) in ["workspaces", "snapshots", "sessions"].into_iter().zip(stored).zip(shown) {
        let stored = stored?;
        if stored != shown {
            let message = format!("{what} on {}: the store has {stored:?}, and the API shows {shown:?}", subject.name);
            findings.push(Finding::new(Leak::Disagreement, message));
        }
    }
    Ok(findings)
}

/// Ids, and a word of each.
async fn read(
    store: &DatabaseConnection,
    kind: Store,
    id: &str,
    table: &str,
    word: &str,
    only: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (id, schema) = match kind {
        Store::Sqlite => (format!("lower(hex({id}))"), ""),
        Store::Postgres => (format!("replace(CAST({id} AS text), '-', '')"), "kb."),
    };
    let query = format!("SELECT {id} AS named, {word} AS word FROM {schema}{table} WHERE {only}");
    let rows = store.query_all_raw(Statement::from_string(store.get_database_backend(), query)).await?;
    let pairs = rows.iter().map(|row| Ok((row.try_get("", "named")?, row.try_get("", "word")?)));
    pairs.collect::<Result<_, sea_orm::DbErr>>().context("reading the store")
}

fn pairs<'a>(rows: impl Iterator<Item = (&'a Value, &'a Value)>) -> BTreeMap<String, String> {
    rows.filter_map(|(id, word)| Some((id.as_str()?.replace('-', ""), word.as_str()?.to_owned()))).collect()
}
