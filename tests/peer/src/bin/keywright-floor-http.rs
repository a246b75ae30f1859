//! The floor of the HTTP measure: axum and sqlx, one statement for the rows of a job (`POST /rows`), and one bare row
//! (`POST /bare`). No authentication, no checks. `DATABASE_URL` names a migrated database; prints its address.

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

/// The rows of a job, and what its request is answered under its `Idempotency-Key`.
const ROWS: &str = include_str!("../../sql/answered.sql");

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL names the database")?;
    let connections = std::env::var("CONNECTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false).connect(&url).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS bench_bare (id uuid PRIMARY KEY, payload jsonb NOT NULL)").execute(&pool).await?;
    let app = Router::new().route("/rows", post(rows)).route("/bare", post(bare)).with_state(pool);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

type Answer = Result<(StatusCode, Json<Value>), (StatusCode, String)>;

async fn rows(State(pool): State<PgPool>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let (job, event) = (Uuid::now_v7(), Uuid::now_v7());
    let payload = json!({"mode": "full", "subscriptions": []});
    let details = json!({"mode": "full", "subscriptions": []});
    let told = json!({"id": job, "kind": "discovery.scan", "state": "queued", "request": body});
    let query = sqlx::query(ROWS).bind(job).bind(event).bind(payload).bind(&body).bind(details);
    let done = query.bind(key).bind(told.to_string()).execute(&pool).await;
    done.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(told)))
}

async fn bare(State(pool): State<PgPool>, Json(body): Json<Value>) -> Answer {
    let id = Uuid::now_v7();
    let done = sqlx::query("INSERT INTO bench_bare VALUES ($1, $2)").bind(id).bind(&body).execute(&pool).await;
    done.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id}))))
}
