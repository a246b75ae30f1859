//! What users and tokens are restricted to, and the failures that slow down sign-ins.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, mut column) in added() {
            manager.alter_table(Table::alter().table(table).add_column(&mut column).take()).await?;
        }
        create(
            manager,
            "login_failures",
            vec![
                // what they are counted for: an account, an address or both, by a keyed hash
                text_key("id"),
                int("failures", 0),
                time("last_at"),
                // until then nobody of this id may try again
                time("blocked_until"),
            ],
        )
        .await?;
        run(manager, &["CREATE INDEX login_failures_last ON login_failures (last_at)"]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["login_failures"]).await?;
        for (table, column) in added() {
            let name = column.get_column_name().to_owned();
            manager.alter_table(Table::alter().table(table).drop_column(Alias::new(name)).take()).await?;
        }
        Ok(())
    }
}

/// Ids of subscriptions, names of permissions; null = no restriction.
fn added() -> [(&'static str, ColumnDef); 3] {
    [
        ("user_account", json_null("subscriptions")),
        ("api_token", json_null("subscriptions")),
        ("api_token", json_null("permissions")),
    ]
}
