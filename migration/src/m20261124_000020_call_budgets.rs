//! What workers share of the clouds' rates, which calls a job made, and how fast a scan could have been.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rate = ColumnDef::new("rate").double().not_null().take();
        create(manager, "call_budget", vec![text_key("budget"), rate, time("cut_at"), time("until")]).await?;
        run(manager, &["CREATE INDEX call_budget_until ON call_budget (until)"]).await?;
        let floor = ColumnDef::new("floor_seconds").double().null().take();
        for (table, column) in [("job", json_null("calls")), ("scan", floor)] {
            manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in [("scan", "floor_seconds"), ("job", "calls")] {
            manager.alter_table(Table::alter().table(table).drop_column(column).take()).await?;
        }
        drop(manager, &["call_budget"]).await
    }
}
