//! What stands beside the inventory: how each scope stands, however long jobs are kept; what assets hang together with; and the
//! fingerprint by which one certificate is found in several places.

use crate::columns::*;
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, JsonValue, Statement, prelude::Uuid},
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        manager.alter_table(Table::alter().table("asset").add_column(text_null("fingerprint")).to_owned()).await?;
        let fingerprint =
            if postgres { "certificate ->> 'fingerprintSha256'" } else { "certificate ->> '$.fingerprintSha256'" };
        run(
            manager,
            &[&format!(
                "UPDATE asset SET fingerprint = substr(lower({fingerprint}), 1, 128) WHERE certificate IS NOT NULL"
            )],
        )
        .await?;
        create(
            manager,
            "asset_relation",
            vec![id(), uuid("asset_id"), uuid("subscription_id"), text("relation"), text("target")],
        )
        .await?;
        create(manager, "scope_coverage", coverage_columns()).await?;
        run(manager, INDICES).await?;
        relate(manager).await?;
        let (id, planned) = if postgres {
            ("gen_random_uuid()", "NOT bool_and(asset.stale)")
        } else {
            ("randomblob(16)", "min(asset.stale) = 0")
        };
        for text in [SCANNED, UNTOLD] {
            run(manager, &[&text.replace("{id}", id).replace("{planned}", planned)]).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["scope_coverage", "asset_relation"]).await?;
        run(manager, &["DROP INDEX asset_fingerprint", "DROP INDEX asset_external"]).await?;
        manager.alter_table(Table::alter().table("asset").drop_column("fingerprint").to_owned()).await
    }
}

fn coverage_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        uuid("subscription_id"),
        text("provider"),
        text("region"),
        text("kind"),
        boolean("planned", true),
        time("created_at"),
        time_null("scanned_at"),
        uuid_null("scanned_by"),
        time_null("ended_at"),
        uuid_null("ended_by"),
        time_null("throttled_at"),
        text_null("error_code"),
        text_null("error_detail"),
        text_null("error_permission"),
    ]
}

const INDICES: &[&str] = &[
    "CREATE INDEX asset_fingerprint ON asset (fingerprint, id) WHERE removed_at IS NULL AND fingerprint IS NOT NULL",
    "CREATE INDEX asset_external ON asset (external_id) WHERE removed_at IS NULL",
    "CREATE UNIQUE INDEX asset_relation_asset ON asset_relation (asset_id, relation, target)",
    "CREATE INDEX asset_relation_target ON asset_relation (target, asset_id)",
    "CREATE UNIQUE INDEX scope_coverage_place ON scope_coverage (subscription_id, region, kind)",
    "CREATE INDEX scope_coverage_created ON scope_coverage (created_at, id)",
];

/// Where assets were seen, somebody looked. By which scan is not known any more.
const SCANNED: &str = "INSERT INTO scope_coverage \
    (id, subscription_id, provider, region, kind, planned, created_at, scanned_at, ended_at) \
    SELECT {id}, subscription.id, subscription.provider, asset.region, asset.kind, {planned}, subscription.created_at, \
    max(asset.last_seen_at), max(asset.last_seen_at) \
    FROM asset JOIN subscription ON subscription.id = asset.subscription_id WHERE subscription.deleted_at IS NULL \
    GROUP BY subscription.id, subscription.provider, asset.region, asset.kind, subscription.created_at";

const UNTOLD: &str = "INSERT INTO scope_coverage (id, subscription_id, provider, region, kind, planned, created_at) \
    SELECT {id}, id, provider, '*', '*', true, created_at FROM subscription WHERE deleted_at IS NULL \
    AND NOT EXISTS (SELECT 1 FROM scope_coverage WHERE scope_coverage.subscription_id = subscription.id)";

/// Assets in one step.
const BATCH: usize = 500;
/// What an index takes of a target. None that a provider has is as long.
const LONGEST: usize = 2048;

async fn relate(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let (db, backend) = (manager.get_connection(), manager.get_database_backend());
    let new = if backend == DbBackend::Postgres { "gen_random_uuid()" } else { "randomblob(16)" };
    let select = format!(
        "SELECT asset.id, asset.subscription_id, version.content FROM asset \
         JOIN asset_version version ON version.asset_id = asset.id AND version.valid_to IS NULL \
         WHERE asset.removed_at IS NULL AND asset.id > $1 ORDER BY asset.id LIMIT {BATCH}"
    );
    let insert = format!(
        "INSERT INTO asset_relation (id, asset_id, subscription_id, relation, target) VALUES ({new}, $1, $2, $3, $4) \
         ON CONFLICT DO NOTHING"
    );
    let mut after = Uuid::nil();
    loop {
        let rows = db.query_all_raw(Statement::from_sql_and_values(backend, &select, [after.into()])).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.try_get("", "id")?;
        for row in &rows {
            let (asset, subscription): (Uuid, Uuid) = (row.try_get("", "id")?, row.try_get("", "subscription_id")?);
            let content: JsonValue = row.try_get("", "content")?;
            for end in content.get("relations").and_then(JsonValue::as_array).into_iter().flatten() {
                let text = |member: &str| end.get(member).and_then(JsonValue::as_str);
                let Some((relation, to)) = text("relation").zip(text("to").filter(|to| to.len() <= LONGEST)) else {
                    continue;
                };
                let values = [asset.into(), subscription.into(), relation.into(), to.into()];
                db.execute_raw(Statement::from_sql_and_values(backend, &insert, values)).await?;
            }
        }
    }
}
