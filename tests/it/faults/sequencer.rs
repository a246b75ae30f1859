//! The audit log while those that number its events stand still or lose their database: no gap, no fork, no event lost.

use super::freeze::freeze;
use keywright_entities::{audit_log, audit_outbox};
use keywright_jobs::{
    audit::{Actor, Event, EventType, check::check},
    setup::database::Database,
};
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    faults::{server::Server, trial::Trial},
    on_both_databases,
    process::Signal,
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};
use std::mem::swap;
use tokio_util::sync::CancellationToken;

on_both_databases!(a_frozen_sequencer_makes_neither_gap_nor_fork);

const WRITTEN: EventType = EventType::SettingsUpdated;

/// Events as anybody writes them.
async fn write(db: &Database, count: u64) -> Result<(), DbErr> {
    let write = db.begin().await?;
    Event::write_all((0..count).map(|n| Event::new(WRITTEN, Actor::SYSTEM, "settings").detail("n", n)), &*write)
        .await?;
    write.commit().await
}

async fn written(db: &Database) -> u64 {
    let events = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq(WRITTEN.as_str()));
    events.count(db.reader()).await.unwrap()
}

/// Every event has its number, and the log is what its checkpoints say.
async fn is_whole(db: &Database) {
    eventually("every event has its number", async || {
        let waiting = audit_outbox::Entity::find().filter(audit_outbox::Column::Seq.is_null());
        (waiting.count(db.reader()).await.ok()? == 0).then_some(())
    })
    .await;
    let checked = check(db.reader(), None, |_, _| ()).await.unwrap();
    let events = audit_outbox::Entity::find().count(db.reader()).await.unwrap();
    assert_eq!((checked.fault, checked.events), (None, events));
}

async fn a_frozen_sequencer_makes_neither_gap_nor_fork(test: TestDatabase) {
    let trial = Trial::on("sequencer frozen", &test.database).await;
    let db = &trial.db;
    let epoch = async || audit_log::get(db.reader()).await.ok().filter(|log| log.holder.is_some()).map(|log| log.epoch);
    let mut holder = trial.worker("first").await;
    let mut held = eventually("the first one numbers events", epoch).await;
    let mut other = trial.worker("second").await;
    for _ in 0..3 {
        write(db, 700).await.unwrap();
        freeze(db, &holder).await;
        write(db, 700).await.unwrap();
        held = eventually("the other one takes over", async || epoch().await.filter(|now| *now > held)).await;
        is_whole(db).await;
        holder.signal(Signal::Continue);
        write(db, 700).await.unwrap();
        is_whole(db).await;
        swap(&mut holder, &mut other);
    }
    assert_eq!(written(db).await, 3 * 3 * 700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_under_the_sequencer_loses_no_event() {
    let Some(mut server) = Server::start().await else { return };
    let db = Database::open(&server.url, 8).await.unwrap();
    db.migrate().await.unwrap();
    let trial = Trial::on("PostgreSQL killed under the sequencer", &db).await;
    let (_first, _second) = tokio::join!(trial.worker("first"), trial.worker("second"));
    let mut sure = 0;
    for _ in 0..3 {
        let enough = CancellationToken::new();
        let (writer, stop) = (db.clone(), enough.clone());
        let writing = tokio::spawn(async move {
            let mut sure = 0;
            while !stop.is_cancelled() {
                // what was not answered may be there or not
                sure += if write(&writer, 50).await.is_ok() { 50 } else { 0 };
            }
            sure
        });
        let numbered = audit_log::get(db.reader()).await.unwrap().size;
        eventually("events are being numbered", async || {
            audit_log::get(db.reader()).await.ok().filter(|log| log.size > numbered + 100)
        })
        .await;
        server.kill().await;
        server.up().await;
        enough.cancel();
        sure += writing.await.unwrap();
        eventually("the database answers", async || audit_log::get(db.reader()).await.ok()).await;
        is_whole(&db).await;
    }
    assert!(written(&db).await >= sure && sure > 0, "events are gone that were committed");
}
