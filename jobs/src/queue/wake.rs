//! News that something was committed, from this process or another: one source per process.
//!
//! PostgreSQL: `LISTEN` on one connection, `NOTIFY` from another after the commit, at once when idle and else at most every
//! 5 ms (inside the transaction it would make all commits of the server take turns). SQLite: `PRAGMA data_version` on a connection
//! held for it. News are hints: whoever acts on them also looks by itself about once a second.

use crate::setup::database::Database;
use sea_orm::DbBackend;
use sqlx::{ConnectOptions, Connection, postgres::PgListener};
use std::{str::FromStr, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CHANNEL: &str = "keywright";
/// How often another process's commits to a SQLite file are looked for; one look costs a few microseconds.
const SQLITE_LOOK: Duration = Duration::from_millis(10);
const NOTIFY_PAUSE: Duration = Duration::from_millis(5);
const RECONNECT: Duration = Duration::from_millis(500);

/// The source; its receivers see a number that changes with every piece of news.
#[derive(Clone)]
pub struct Wake {
    sender: watch::Sender<u64>,
}

impl Wake {
    /// Starts listening until `stop`.
    pub fn start(database: &Database, stop: CancellationToken) -> Self {
        let wake = Self { sender: watch::Sender::new(0) };
        let (sender, url, committed) = (wake.sender.clone(), database.url().to_owned(), database.committed());
        let (outbox, mut pending) = (watch::Sender::new(0_u64), database.backend());
        let out = outbox.subscribe();
        if pending == DbBackend::Postgres {
            tokio::spawn(guard(stop.clone(), send_notifications(url.clone(), out)));
            tokio::spawn(guard(stop.clone(), listen(url, sender.clone())));
        } else {
            tokio::spawn(guard(stop.clone(), watch_file(url, sender.clone())));
            pending = DbBackend::Sqlite;
        }
        tokio::spawn(guard(stop, async move {
            loop {
                committed.notified().await;
                sender.send_modify(|news| *news += 1);
                if pending == DbBackend::Postgres {
                    outbox.send_modify(|news| *news += 1);
                }
            }
        }));
        wake
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }
}

async fn guard(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn send_notifications(url: String, mut pending: watch::Receiver<u64>) {
    // what could not be sent is sent by the next connection
    let mut unsent = false;
    loop {
        let Ok(mut connection) = sqlx::PgConnection::connect(&url).await else {
            tokio::time::sleep(RECONNECT).await;
            continue;
        };
        // the server writes a notification like a commit, and this one need not wait for the disk: a lost one is looked for
        let _ = sqlx::query("SET synchronous_commit = off").execute(&mut connection).await;
        while unsent || pending.changed().await.is_ok() {
            unsent = true;
            if let Err(error) = sqlx::query("SELECT pg_notify('keywright', '')").execute(&mut connection).await {
                tracing::debug!(%error, "the notifying connection was lost");
                break;
            }
            unsent = false;
            tokio::time::sleep(NOTIFY_PAUSE).await;
        }
    }
}

async fn listen(url: String, sender: watch::Sender<u64>) {
    loop {
        match PgListener::connect(&url).await {
            Ok(mut listener) => {
                if listener.listen(CHANNEL).await.is_ok() {
                    // whatever was sent while nobody listened
                    sender.send_modify(|news| *news += 1);
                    while let Ok(Some(_)) = listener.try_recv().await {
                        sender.send_modify(|news| *news += 1);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen for notifications; polling goes on"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn watch_file(url: String, sender: watch::Sender<u64>) {
    loop {
        if let Err(error) = watch_file_once(&url, &sender).await {
            tracing::debug!(%error, "cannot watch the SQLite file; polling goes on");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn watch_file_once(url: &str, sender: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::from_str(url)?.read_only(true);
    let mut connection = options.connect().await?;
    let mut known: Option<i64> = None;
    loop {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut connection).await?;
        // at first for whatever was committed while nobody looked
        if known != Some(version) {
            sender.send_modify(|news| *news += 1);
        }
        known = Some(version);
        tokio::time::sleep(SQLITE_LOOK).await;
    }
}
