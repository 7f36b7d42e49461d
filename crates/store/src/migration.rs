//! The schema, in small linear steps. A step that has been released is never changed; a mistake gets a step of its own.
#![expect(elided_lifetimes_in_paths, reason = "the trait's own signature, which an implementation has to repeat")]

use sea_orm_migration::prelude::*;

mod m2026_11_21_000001_installation;
mod m2026_11_21_000002_agent_workspaces;
mod m2026_11_21_000003_selection;
mod m2026_11_21_000005_sessions_and_idle;
mod m2026_11_21_000006_audit;

pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m2026_11_21_000001_installation::Migration),
            Box::new(m2026_11_21_000002_agent_workspaces::Migration),
            Box::new(m2026_11_21_000003_selection::Migration),
            Box::new(m2026_11_21_000005_sessions_and_idle::Migration),
            Box::new(m2026_11_21_000006_audit::Migration),
        ]
    }
}
