//! Users whom a provider vouches for, sessions that began there, and the ways back from it that were taken.

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
        // the hash of a state that came back: none comes back twice
        create(manager, "sso_return", vec![text_key("id"), time("expires_at")]).await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP INDEX user_account_sso"]).await?;
        drop(manager, &["sso_return"]).await?;
        for (table, column) in added() {
            let name = column.get_column_name().to_owned();
            manager.alter_table(Table::alter().table(table).drop_column(Alias::new(name)).take()).await?;
        }
        Ok(())
    }
}

/// Issuer and subject are those of the ID token, both set or neither.
fn added() -> [(&'static str, ColumnDef); 3] {
    [
        ("user_account", text_null("sso_issuer")),
        ("user_account", text_null("sso_subject")),
        ("session", boolean("sso", false)),
    ]
}

const INDICES: &[&str] = &[
    "CREATE UNIQUE INDEX user_account_sso ON user_account (sso_issuer, sso_subject)",
    "CREATE INDEX sso_return_expiry ON sso_return (expires_at)",
];
