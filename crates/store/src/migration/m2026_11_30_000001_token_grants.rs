//! The grants of tokens beside their scopes: to administer the installation, to call as an operator, one workspace alone,
//! and some tools alone.

use sea_orm_migration::{prelude::*, schema::*};

use super::in_core;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            boolean("is_administrator").default(false).to_owned(),
            // As every token from before.
            boolean("is_operator").default(true).to_owned(),
            uuid_null("workspace_id"),
            json_binary_null("tools"),
        ] {
            manager.alter_table(Table::alter().table("tokens").add_column(column).to_owned()).await?;
        }
        // Until now, the holders of tokens of the default project were the administrators.
        let mut default = Query::select();
        default.column("id").from(in_core(manager, "projects")).and_where(Expr::col("name").eq("default"));
        let mut promote = Query::update();
        promote.table(in_core(manager, "tokens")).value("is_administrator", true);
        promote.and_where(Expr::col("project_id").in_subquery(default));
        manager.execute(promote).await
    }
}
