//! The schema, in small linear steps. A step that has been released is never changed; a mistake gets a step of its own.
#![expect(elided_lifetimes_in_paths, reason = "the trait's own signature, which an implementation has to repeat")]

use sea_orm::{DatabaseTransaction, DbBackend, Statement};
use sea_orm_migration::prelude::*;

use crate::{
    connection::{Alone, Writer, postgres::SCHEMAS},
    error::{Doing as _, OpenError},
};

mod m2026_11_21_000001_installation;
mod m2026_11_21_000002_agent_workspaces;
mod m2026_11_21_000003_selection;
mod m2026_11_21_000004_snapshots;
mod m2026_11_21_000005_sessions_and_idle;
mod m2026_11_21_000006_audit;
mod m2026_11_21_000007_servers;
mod m2026_11_21_000008_mcp_servers;
mod m2026_11_21_000009_mcp_allow_lists;
mod m2026_11_29_000001_pulled_images;
mod m2026_11_29_000002_leftovers;
mod m2026_11_29_000003_quotas;
mod m2026_11_29_000005_token_changes;
mod m2026_11_29_000008_names;
mod m2026_11_30_000001_token_grants;

pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m2026_11_21_000001_installation::Migration),
            Box::new(m2026_11_21_000002_agent_workspaces::Migration),
            Box::new(m2026_11_21_000003_selection::Migration),
            Box::new(m2026_11_21_000004_snapshots::Migration),
            Box::new(m2026_11_21_000005_sessions_and_idle::Migration),
            Box::new(m2026_11_21_000006_audit::Migration),
            Box::new(m2026_11_21_000007_servers::Migration),
            Box::new(m2026_11_21_000008_mcp_servers::Migration),
            Box::new(m2026_11_21_000009_mcp_allow_lists::Migration),
            Box::new(m2026_11_29_000001_pulled_images::Migration),
            Box::new(m2026_11_29_000002_leftovers::Migration),
            Box::new(m2026_11_29_000003_quotas::Migration),
            Box::new(m2026_11_29_000005_token_changes::Migration),
            Box::new(m2026_11_29_000008_names::Migration),
            Box::new(m2026_11_30_000001_token_grants::Migration),
        ]
    }
}

/// Brings the database to this release's schema: wholly, or not at all. Of servers that start at once, one does it.
pub(crate) async fn run(writer: &Writer) -> Result<(), OpenError> {
    let transaction = writer.begin_alone(Alone::Schema, "begin its migration").await.map_err(OpenError::Prepare)?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        make_schemas(&transaction).await.map_err(OpenError::Migrate)?;
    }
    Migrator::up(&transaction, None).await.map_err(OpenError::Migrate)?;
    transaction.commit().await.doing("finish its migration").map_err(OpenError::Prepare)
}

/// Makes the schemas that are missing. A user who may not make any can have them made by one who may.
async fn make_schemas(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    for schema in SCHEMAS {
        let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        let there = Statement::from_sql_and_values(DbBackend::Postgres, there, [schema.into()]);
        if transaction.query_one_raw(there).await?.is_none() {
            transaction.execute_unprepared(&format!("CREATE SCHEMA {schema}")).await?;
        }
    }
    Ok(())
}

/// The name of a table in schema `core`. Other tables need none: they go into `kb`, and all are found without.
fn in_core(manager: &SchemaManager, table: &'static str) -> TableRef {
    match manager.get_database_backend() {
        DbBackend::Postgres => ("core", table).into_table_ref(),
        _ => table.into_table_ref(),
    }
}
