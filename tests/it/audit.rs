//! The audit log: numbers without gaps, a tree without forks, and what of it can be changed without being found.

use keywright_entities::{audit_checkpoint, audit_log, audit_name, audit_outbox, clock, types::Outcome};
use keywright_jobs::{
    audit::{
        Actor, Event, EventType, check,
        export::{Export, Part},
        keys, log, names,
        proof::{
            export::{Inputs, verify},
            note::Verifier,
            tree,
            verdict::Kind,
        },
        sequencer::Sequencer,
    },
    setup::{database::Database, sealing::Sealing},
};
use keywright_tests::{
    app::{PATIENCE, TestApp, WorkerSettings, eventually, sealing},
    database::TestDatabase,
    on_both_databases,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};
use uuid::Uuid;

on_both_databases!(
    events_get_numbers_without_gaps_and_an_export_proves_them,
    two_sequencers_make_one_log,
    a_sequencer_that_lost_its_lease_appends_nothing,
    the_database_refuses_changes,
    what_is_changed_behind_its_back_is_found,
    names_can_be_erased_and_the_log_stands,
    keys_are_rotated_and_vouch_for_one_another,
    a_worker_sequences_and_signs,
);

/// No lease ends by itself within a test.
const LEASE: Duration = Duration::from_secs(600);

async fn sequencer(database: &Database) -> Sequencer {
    Sequencer::new(database.clone(), sealing(database).await, LEASE)
}

async fn write(database: &Database, count: usize) {
    let write = database.begin().await.unwrap();
    let events = (0..count).map(|n| {
        let user = Uuid::from_u128(n as u128 % 3 + 1);
        Event::new(EventType::UserUpdated, Actor::user(user, format!("name-{}", n % 3)), "user")
            .subject(Uuid::from_u128(9))
            .outcome(if n % 2 == 0 { Outcome::Success } else { Outcome::Denied })
            .request(format!("r-{n}"))
            .detail("name", "Moneypenny")
            .detail("count", n)
            .detail("ratio", 1.5)
            .detail("text", "ä \"quoted\" \u{1F600}\n")
    });
    Event::write_all(events, &*write).await.unwrap();
    write.commit().await.unwrap();
}

/// Numbers and signs all that waits.
async fn drain(sequencer: &mut Sequencer) {
    while sequencer.step(true).await.unwrap() > 0 {}
}

async fn numbers(database: &Database) -> Vec<i64> {
    let rows =
        audit_outbox::Entity::find().order_by_asc(audit_outbox::Column::Seq).all(database.reader()).await.unwrap();
    rows.into_iter().filter_map(|row| row.seq).collect()
}

async fn export(database: &Database, sealing: &Sealing, from: u64, to: Option<u64>) -> Vec<u8> {
    let part = Part::of(database, from, to).await.unwrap();
    let (mut export, mut out) = Export::begin(database, sealing, part).await.unwrap();
    while let Some(more) = export.more().await.unwrap() {
        out.extend(more);
    }
    out
}

async fn trusted(database: &Database) -> Vec<Verifier> {
    keys::history(database.reader()).await.unwrap().verifiers()
}

async fn fault(database: &Database) -> Option<&'static str> {
    check::check(database.reader(), None, |_, _| ()).await.unwrap().fault.map(|fault| fault.code)
}

async fn events_get_numbers_without_gaps_and_an_export_proves_them(database: TestDatabase) {
    let db = &database.database;
    let sealing = sealing(db).await;
    let mut one = sequencer(db).await;
    for count in [1, 255, 1, 1500, 3] {
        write(db, count).await;
        drain(&mut one).await;
    }
    let total = 1760;
    assert_eq!(numbers(db).await, (0..total).collect::<Vec<i64>>());
    let checked = check::check(db.reader(), None, |_, _| ()).await.unwrap();
    assert_eq!((checked.fault, checked.events, checked.covered), (None, 1760, 1760));
    let checkpoints = audit_checkpoint::Entity::find().all(db.reader()).await.unwrap();
    assert_eq!(checked.checkpoints, checkpoints.len() as u64);
    let gaps = checkpoints.windows(2).map(|pair| pair[1].size - pair[0].size);
    assert!(gaps.max().unwrap() <= 1000, "a checkpoint at least every 1,000 events");
    let keys = trusted(db).await;
    let kept = checkpoints.iter().map(|row| (row.size.to_string(), row.note.parse().unwrap())).collect();
    let inputs = Inputs { keys, checkpoints: kept, ..Inputs::default() };
    let whole = export(db, &sealing, 0, None).await;
    let report = verify(whole.as_slice(), &inputs).unwrap();
    assert_eq!((report.from, report.to, report.erased_names), (0, 1760, 0));
    let part = export(db, &sealing, 300, Some(1301)).await;
    let inputs = Inputs { checkpoints: Vec::new(), part: true, ..inputs };
    assert_eq!(verify(part.as_slice(), &inputs).unwrap().to, 1301);
    // one row of the file is another one's
    let text = String::from_utf8(whole).unwrap();
    let changed = text.replacen("\"count\":100,", "\"count\":101,", 1);
    let fault = verify(changed.as_bytes(), &inputs).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Tampered, "event_changed"));
    // proofs, each from a few tiles
    let root = checked.root;
    for event in [0, 255, 256, 1023, 1759] {
        let (leaf, proof) = log::inclusion(db.reader(), event, 1760).await.unwrap().unwrap();
        assert!(tree::verify_inclusion(event, 1760, &leaf, &root, &proof), "{event}");
    }
    assert!(log::inclusion(db.reader(), 1760, 1760).await.unwrap().is_none());
    let proof = log::consistency(db.reader(), 1, 1760).await.unwrap().unwrap();
    let (first, _) = log::inclusion(db.reader(), 0, 1).await.unwrap().unwrap();
    assert!(tree::verify_consistency(1, 1760, &first, &root, &proof));
}

async fn two_sequencers_make_one_log(database: TestDatabase) {
    let db = &database.database;
    let other = database.another().await;
    let (sealing, short) = (sealing(db).await, Duration::from_millis(1));
    // leases that are over at once: each takes the log from the other all the time
    let mut one = Sequencer::new(db.clone(), sealing.clone(), short);
    let mut two = Sequencer::new(other.clone(), sealing.clone(), short);
    let done = AtomicBool::new(false);
    let run = async |sequencer: &mut Sequencer, appended: &AtomicU64| {
        while !done.load(SeqCst) {
            let new = sequencer.step(false).await.unwrap_or_default();
            appended.fetch_add(new, SeqCst);
            // it stands still for longer than its lease, and goes on with what it knows
            tokio::time::sleep(if new > 0 { 10 * short } else { short / 4 }).await;
        }
    };
    let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
    // at least a thousand events, and until both had a part in them
    let writing = async {
        let mut events = 0;
        while events < 1000 || first.load(SeqCst) == 0 || second.load(SeqCst) == 0 {
            write(db, 25).await;
            events += 25;
        }
        eventually("every event has a number", async || {
            audit_outbox::unsequenced(db.reader(), 1).await.unwrap().is_empty().then_some(())
        })
        .await;
        done.store(true, SeqCst);
        events
    };
    let all = async { tokio::join!(run(&mut one, &first), run(&mut two, &second), writing).2 };
    let events = tokio::time::timeout(PATIENCE, all).await.expect("both append");
    assert_eq!(numbers(db).await, (0..events).collect::<Vec<i64>>());
    eventually("the log is checked", async || fault(db).await.is_none().then_some(())).await;
    let file = eventually("a checkpoint covers everything", async || {
        let _ = one.step(true).await;
        let covered = audit_checkpoint::newest(db.reader()).await.unwrap()?.size;
        (covered == events).then_some(())
    });
    file.await;
    let inputs = Inputs { keys: trusted(db).await, ..Inputs::default() };
    let to = verify(export(db, &sealing, 0, None).await.as_slice(), &inputs).unwrap().to;
    assert_eq!(i64::try_from(to).unwrap(), events);
}

async fn a_sequencer_that_lost_its_lease_appends_nothing(database: TestDatabase) {
    let db = &database.database;
    let (mut frozen, mut other) = (sequencer(db).await, sequencer(db).await);
    write(db, 3).await;
    assert_eq!(frozen.step(false).await.unwrap(), 3);
    write(db, 4).await;
    assert_eq!(other.step(false).await.unwrap(), 0, "the lease is the other's");
    // it stands still until its lease is over
    let over = format!("UPDATE audit_log SET lease_until = {}", clock::sql(db.backend(), -1));
    db.reader().execute_unprepared(&over).await.unwrap();
    assert_eq!(other.step(false).await.unwrap(), 4);
    write(db, 5).await;
    assert_eq!(frozen.step(true).await.unwrap(), 0, "thawed, it goes on with what it knew");
    assert_eq!(frozen.step(true).await.unwrap(), 0, "and finds the lease taken");
    drain(&mut other).await;
    assert_eq!(numbers(db).await, (0..12).collect::<Vec<i64>>());
    assert_eq!(fault(db).await, None);
    assert_eq!(audit_log::get(db.reader()).await.unwrap().epoch, 2);
}

async fn the_database_refuses_changes(database: TestDatabase) {
    let db = &database.database;
    write(db, 2).await;
    let refuses = async |text: &str| {
        assert!(db.reader().execute_unprepared(text).await.is_err(), "{text}");
    };
    // also before there is a number
    refuses("UPDATE audit_outbox SET outcome = 'denied'").await;
    refuses("DELETE FROM audit_outbox").await;
    drain(&mut sequencer(db).await).await;
    for text in [
        "UPDATE audit_outbox SET outcome = 'denied'",
        "UPDATE audit_outbox SET seq = seq + 10",
        "UPDATE audit_outbox SET seq = NULL",
        "UPDATE audit_outbox SET details = '{}'",
        "UPDATE audit_outbox SET actor_name_id = NULL",
        "DELETE FROM audit_outbox WHERE seq = 1",
        "UPDATE audit_checkpoint SET note = 'x'",
        "DELETE FROM audit_checkpoint",
        "DELETE FROM audit_tile",
        "UPDATE audit_tile SET level = 3",
    ] {
        refuses(text).await;
    }
    if db.backend() == sea_orm::DbBackend::Postgres {
        refuses("TRUNCATE audit_outbox").await;
        refuses("TRUNCATE audit_tile").await;
    }
    assert_eq!(fault(db).await, None);
}

/// Somebody who can do anything to the database but sign.
async fn unguarded(database: &Database, text: &str) {
    let db = database.reader();
    if database.backend() == sea_orm::DbBackend::Postgres {
        for table in ["audit_outbox", "audit_tile", "audit_checkpoint"] {
            db.execute_unprepared(&format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await.unwrap();
        }
    } else {
        for trigger in ["outbox_once", "outbox_kept", "tile_grows", "tile_kept", "checkpoint_once", "checkpoint_kept"] {
            db.execute_unprepared(&format!("DROP TRIGGER IF EXISTS audit_{trigger}")).await.unwrap();
        }
    }
    db.execute_unprepared(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
}

async fn what_is_changed_behind_its_back_is_found(database: TestDatabase) {
    let db = &database.database;
    let mut one = sequencer(db).await;
    write(db, 10).await;
    drain(&mut one).await;
    write(db, 10).await;
    drain(&mut one).await;
    assert_eq!(fault(db).await, None);
    // each is put right again, by what undoes it
    for (change, undo, code) in [
        (
            "UPDATE audit_outbox SET outcome = 'failure' WHERE seq = 4",
            "UPDATE audit_outbox SET outcome = 'success' WHERE seq = 4",
            "event_changed",
        ),
        (
            "UPDATE audit_outbox SET request_id = 'r-x' WHERE seq = 5",
            "UPDATE audit_outbox SET request_id = 'r-5' WHERE seq = 5",
            "event_changed",
        ),
        (
            "UPDATE audit_outbox SET seq = 100 WHERE seq = 19",
            "UPDATE audit_outbox SET seq = 19 WHERE seq = 100",
            "event_missing",
        ),
        (
            "UPDATE audit_outbox SET seq = 100 WHERE seq = 4",
            "UPDATE audit_outbox SET seq = 4 WHERE seq = 100",
            "event_missing",
        ),
        ("UPDATE audit_log SET size = 15", "UPDATE audit_log SET size = 20", "log_shrunk"),
        (
            "UPDATE audit_name SET name = 'name-x' WHERE name = 'name-1'",
            "UPDATE audit_name SET name = 'name-1' WHERE name = 'name-x'",
            "name_changed",
        ),
        (
            "UPDATE audit_checkpoint SET note = replace(note, 'time 2', 'time 3') WHERE size = 10",
            "UPDATE audit_checkpoint SET note = replace(note, 'time 3', 'time 2') WHERE size = 10",
            "signature_wrong",
        ),
        (
            "UPDATE signing_key SET purpose = 'gone'",
            "UPDATE signing_key SET purpose = 'evidence' WHERE purpose = 'gone'",
            "other_key",
        ),
    ] {
        unguarded(db, change).await;
        assert_eq!(fault(db).await, Some(code), "{change}");
        unguarded(db, undo).await;
        assert_eq!(fault(db).await, None, "{undo}");
    }
    // a job that ended, and nobody ever told of it
    let app = TestApp::on(database);
    let db = app.database();
    app.subscribe("one").await;
    let scan = app.scan().await;
    let worker = app.worker(WorkerSettings::default()).await;
    app.ended(scan).await;
    worker.stop().await;
    assert_eq!(fault(db).await, None);
    let text = format!("UPDATE job SET state = 'succeeded' WHERE id = {}", literal(db, app.scan().await));
    unguarded(db, &text).await;
    assert_eq!(fault(db).await, Some("event_never_logged"));
}

fn literal(database: &Database, id: Uuid) -> String {
    match database.backend() {
        sea_orm::DbBackend::Sqlite => format!("x'{}'", id.simple()),
        _ => format!("'{id}'"),
    }
}

async fn names_can_be_erased_and_the_log_stands(database: TestDatabase) {
    let db = &database.database;
    let sealing = sealing(db).await;
    let mut one = sequencer(db).await;
    write(db, 7).await;
    drain(&mut one).await;
    let logged = log::events(db.reader(), 0, 1, 1).await.unwrap().remove(0);
    let (row, known) = (&logged.row, logged.names());
    assert_eq!((row.actor_name.as_deref(), row.details.get("name")), (None, None), "no name stands with the event");
    assert_eq!(known.actor.unwrap().text, "name-0");
    assert_eq!(known.subject.unwrap().text, "Moneypenny");
    // some wait for their numbers still
    write(db, 3).await;
    let before = export(db, &sealing, 0, None).await;
    let transaction = db.begin().await.unwrap();
    names::erase(&transaction, Uuid::from_u128(1)).await.unwrap();
    names::erase(&transaction, Uuid::from_u128(9)).await.unwrap();
    transaction.commit().await.unwrap();
    drain(&mut one).await;
    let inputs = Inputs { keys: trusted(db).await, ..Inputs::default() };
    let after = export(db, &sealing, 0, None).await;
    assert!(String::from_utf8_lossy(&before).contains("Moneypenny"));
    for gone in ["name-0", "Moneypenny"] {
        assert!(!String::from_utf8_lossy(&after).contains(gone), "{gone}");
        let kept =
            audit_name::Entity::find().filter(audit_name::Column::Name.eq(gone)).count(db.reader()).await.unwrap();
        assert_eq!(kept, 0, "{gone}");
    }
    assert!(String::from_utf8_lossy(&after).contains("name-1"), "others keep theirs");
    let report = verify(after.as_slice(), &inputs).unwrap();
    assert_eq!((report.to, report.erased_names), (10, 3 + 7));
    verify(before.as_slice(), &inputs).unwrap();
    assert_eq!(fault(db).await, None);
}

async fn keys_are_rotated_and_vouch_for_one_another(database: TestDatabase) {
    let db = &database.database;
    let sealing = sealing(db).await;
    let mut one = sequencer(db).await;
    write(db, 3).await;
    drain(&mut one).await;
    let first = trusted(db).await;
    assert!(keys::rotate(db, &sealing, false).await.unwrap());
    drain(&mut one).await;
    let history = keys::history(db.reader()).await.unwrap();
    assert_eq!(history.keys.len(), 2);
    assert!(history.keys[0].retired_at.is_some() && history.keys[1].voucher.is_some());
    let inputs = Inputs { keys: first.clone(), ..Inputs::default() };
    let report = verify(export(db, &sealing, 0, None).await.as_slice(), &inputs).unwrap();
    assert_ne!(report.key, first[0], "the new key signs, and the old one vouches for it");
    // a stolen one vouches for nobody
    assert!(keys::rotate(db, &sealing, true).await.unwrap());
    drain(&mut one).await;
    let file = export(db, &sealing, 0, None).await;
    assert_eq!(verify(file.as_slice(), &inputs).unwrap_err().code, "other_key");
    let given = Inputs { keys: trusted(db).await, ..Inputs::default() };
    verify(file.as_slice(), &given).unwrap();
    let types: BTreeSet<String> =
        log::events(db.reader(), 0, 100, 100).await.unwrap().into_iter().map(|event| event.row.event_type).collect();
    assert!(types.contains("evidence_key.rotated"), "{types:?}");
    assert_eq!(fault(db).await, None);
}

async fn a_worker_sequences_and_signs(database: TestDatabase) {
    let app = TestApp::on(database);
    let db = app.database().clone();
    let worker = app.worker(WorkerSettings::default()).await;
    write(&db, 30).await;
    eventually("every event has a number", async || {
        audit_outbox::unsequenced(db.reader(), 1).await.unwrap().is_empty().then_some(())
    })
    .await;
    worker.stop().await;
    let row = audit_log::get(db.reader()).await.unwrap();
    assert_eq!((row.size, row.lease_until), (30, None), "it let go of the log");
    assert_eq!(audit_checkpoint::newest(db.reader()).await.unwrap().unwrap().size, 30, "and signed what it had");
    assert_eq!(fault(&db).await, None);
    assert_eq!(numbers(&db).await.len(), 30);
}
