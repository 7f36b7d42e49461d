//! The number of revocations and rotations of tokens: servers that remember tokens look at this one number.

use sea_orm_migration::{prelude::*, schema::*};

use super::in_core;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let changes = Table::create()
            .table(in_core(manager, "token_changes"))
            .col(integer("id").primary_key())
            .col(big_integer("count"))
            .to_owned();
        manager.create_table(changes).await?;
        let mut first = Query::insert();
        first.into_table(in_core(manager, "token_changes")).columns(["id", "count"]).values_panic([1.into(), 0.into()]);
        manager.execute(first).await
    }
}
