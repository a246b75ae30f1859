//! People, their sessions and tokens, the keys that sign for them, and the canary of the key-encryption key.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "user_account", user_columns()).await?;
        create(manager, "session", session_columns()).await?;
        create(manager, "refresh_token", refresh_columns()).await?;
        create(manager, "api_token", token_columns()).await?;
        create(manager, "signing_key", key_columns()).await?;
        create(
            manager,
            "sealing_canary",
            vec![text_key("id"), text("key_id"), bytes("sealed_secret"), time("created_at")],
        )
        .await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["sealing_canary", "signing_key", "api_token", "refresh_token", "session", "user_account"]).await
    }
}

fn user_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("name"),
        // lower case: names differ by more than case
        text("name_key"),
        text_null("password_hash"),
        boolean("password_generated", false),
        text("role"),
        boolean("disabled", false),
        time("created_at"),
        time("updated_at"),
        bigint("version", 1),
    ]
}

fn session_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        uuid("user_id"),
        time("created_at"),
        time("last_used_at"),
        time("expires_at"),
        time_null("revoked_at"),
        text_null("user_agent"),
        text_null("address"),
    ]
}

fn refresh_columns() -> Vec<ColumnDef> {
    vec![text_key("hash"), uuid("session_id"), time("created_at"), time("expires_at"), time_null("used_at")]
}

fn token_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("name"),
        uuid("user_id"),
        text("role"),
        text("token_hash"),
        text("hint"),
        time("created_at"),
        time_null("expires_at"),
        time_null("last_used_at"),
        time_null("revoked_at"),
    ]
}

fn key_columns() -> Vec<ColumnDef> {
    vec![
        text_key("kid"),
        text("algorithm"),
        json("public_jwk"),
        text("key_id"),
        bytes("sealed_private"),
        time("created_at"),
        // unset on the key that signs; a retired key still verifies until then
        time_null("retires_at"),
    ]
}

const INDICES: &[&str] = &[
    "CREATE UNIQUE INDEX user_account_name ON user_account (name_key)",
    "CREATE INDEX user_account_created ON user_account (created_at, id)",
    "CREATE INDEX session_by_user ON session (user_id, created_at, id)",
    "CREATE INDEX refresh_token_session ON refresh_token (session_id)",
    "CREATE UNIQUE INDEX api_token_hash ON api_token (token_hash)",
    "CREATE INDEX api_token_created ON api_token (created_at, id)",
    "CREATE INDEX api_token_user ON api_token (user_id, created_at, id)",
    "CREATE UNIQUE INDEX signing_key_current ON signing_key (algorithm) WHERE retires_at IS NULL",
];
