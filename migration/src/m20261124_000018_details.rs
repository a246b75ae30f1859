//! What only calls for one asset tell, apart from what the list told: kept while the list entry stays the same.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite takes one column at a time
        for column in [text_null("listed_hash"), json_null("details"), time_null("detailed_at")] {
            manager.alter_table(Table::alter().table("asset").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["detailed_at", "details", "listed_hash"] {
            manager.alter_table(Table::alter().table("asset").drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}
