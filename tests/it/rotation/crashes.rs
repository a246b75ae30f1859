//! The worker dies at every point of a rotation in turn: before and after each call and each commit.

use futures::{StreamExt, stream};
use keywright_entities::{audit_outbox, rotation_step};
use keywright_jobs::{domain::rotation::Method, job::Done};
use keywright_tests::{
    database::TestDatabase,
    rotating::{ENTRY, Ended, Rotating, USER, at_once},
};
use keywright_worker::providers::memory::MemoryCloud;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use tokio_util::sync::CancellationToken;

/// What is rotated.
#[derive(Clone, Copy, Debug)]
enum Kind {
    AccessKey,
    /// In a store that can hold a pending version.
    Staged,
    /// In one that cannot.
    Single,
}

const STORED: &str = "before";
/// Trials at once.
const TOGETHER: usize = 4;

async fn prepared(database: TestDatabase, kind: Kind) -> Rotating {
    let cloud = MemoryCloud::default();
    let method = match kind {
        Kind::AccessKey => {
            cloud.put_access_key(USER, ENTRY);
            Method::AwsAccessKey
        }
        Kind::Staged | Kind::Single => {
            cloud.put_entry(ENTRY, STORED, matches!(kind, Kind::Single));
            Method::default()
        }
    };
    Rotating::new(database, cloud, at_once(method)).await
}

/// Runs a rotation whose worker dies at `point`, and whose next one goes on. Tells how many points there were.
async fn die_at(database: TestDatabase, kind: Kind, point: usize) -> usize {
    let trial = prepared(database, kind).await;
    let before = trial.cloud.stored(ENTRY);
    let id = trial.ask().await;
    let cut = trial.cloud.cut_at(point);
    if matches!(trial.attempt(&cut).await, Ended::Cut) {
        let ended = trial.to_the_end().await;
        assert!(matches!(ended, Ok(Done::Succeeded)), "{kind:?} cut at {point}: {ended:?}");
    }
    let points = trial.cloud.points();
    let said = format!("{kind:?} cut at {point}");
    assert_eq!(trial.cloud.broken(), [] as [String; 0], "{said}");
    let after = trial.cloud.stored(ENTRY);
    assert_eq!(after.promoted.len(), 1, "{said}: {after:?}");
    assert!(after.pending.is_none() && after.current != before.current && after.value != before.value, "{said}");
    if matches!(kind, Kind::AccessKey) {
        let keys = trial.cloud.keys_of(USER);
        let [(key, true)] = keys.as_slice() else { panic!("{said}: {keys:?}") };
        assert!(String::from_utf8(after.value).unwrap().contains(key), "{said}");
    }
    let row = trial.row(id).await;
    assert_eq!((row.state.as_str(), row.open_identity, row.open_asset), ("DONE", None, None), "{said}");
    assert!(!trial.keeps_a_value().await, "{said}");
    let steps = trial.steps(id).await;
    history_is_whole(&trial, &steps, &said).await;
    points
}

/// One step after the other, and an audit event of each change of the state.
async fn history_is_whole(trial: &Rotating, steps: &[rotation_step::Model], said: &str) {
    let numbers: Vec<i64> = steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, (2..2 + steps.len() as i64).collect::<Vec<_>>(), "{said}");
    assert!(steps.windows(2).all(|pair| pair[0].after == pair[1].before), "{said}");
    let epochs: Vec<i64> = steps.iter().map(|step| step.epoch).collect();
    assert!(epochs.is_sorted(), "{said}: {epochs:?}");
    // that a change is about to be asked for is there before it is
    let changes = |step: &rotation_step::Model| {
        ["mint", "stage", "promote", "disable previous", "delete previous"].contains(&step.what.as_str())
    };
    let unannounced = steps.windows(2).find(|pair| {
        changes(&pair[1]) && (pair[0].what != "begin" || pair[0].details["call"] != pair[1].details["call"])
    });
    assert!(unannounced.is_none(), "{said}: {unannounced:?}");
    let moves = steps.iter().filter(|step| step.before != step.after).count();
    let told = audit_outbox::Entity::find()
        .filter(audit_outbox::Column::EventType.eq("rotation.step"))
        .count(trial.database.database.reader())
        .await
        .unwrap();
    assert_eq!(told, moves as u64, "{said}");
    let promotions = steps.iter().filter(|step| step.after == "PROMOTED" && step.before != "PROMOTED").count();
    assert_eq!(promotions, 1, "{said}");
}

async fn everywhere(kind: Kind, make: impl AsyncFn() -> Option<TestDatabase>) {
    let Some(database) = make().await else { return };
    let points = die_at(database, kind, usize::MAX).await;
    assert!(points > 40, "{kind:?} has only {points} points");
    let make = &make;
    let trials = stream::iter(0..points).map(|point| async move {
        let database = make().await.expect("there was one before");
        die_at(database, kind, point).await
    });
    let done = trials.buffer_unordered(TOGETHER).count().await;
    assert_eq!(done, points);
}

macro_rules! everywhere {
    ($($name:ident: $kind:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::everywhere(super::Kind::$kind, async || Some(super::TestDatabase::sqlite().await)).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::everywhere(super::Kind::$kind, async || super::TestDatabase::postgres().await).await;
            })+
        }
    };
}

everywhere! {
    an_access_key_survives_a_death_at_every_point: AccessKey,
    a_staged_text_survives_a_death_at_every_point: Staged,
    a_single_text_survives_a_death_at_every_point: Single,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_nobody_disturbs_takes_one_attempt() {
    let trial = prepared(TestDatabase::sqlite().await, Kind::AccessKey).await;
    trial.ask().await;
    let ended = trial.attempt(&CancellationToken::new()).await;
    assert!(matches!(ended, Ended::Recorded(Ok(Done::Succeeded))), "{ended:?}");
}
