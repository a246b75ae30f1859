//! Of a kind, and of a subscription, no more are held at once than may be; whoever is not concerned does not notice.

use super::*;
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::{
    control,
    limits::{self, Limits},
    overview,
};
use keywright_tests::{database::TestDatabase, on_both_databases};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

on_both_databases!(
    of_a_kind_no_more_run_than_may,
    of_a_subscription_no_more_run_than_may,
    both_limits_hold_at_once,
    every_way_of_letting_go_frees_the_place,
    those_aside_are_canceled_paused_and_expire_like_others,
    a_crowd_aside_holds_up_nobody,
    those_aside_take_turns_with_later_ones,
    a_lifted_limit_lets_them_back,
    claimers_at_once_never_exceed_a_limit,
    random_steps_keep_the_limits_and_leave_no_place_empty,
);

/// A second kind.
#[derive(Serialize, Deserialize)]
struct Other;

impl Job for Other {
    const KIND: &'static str = "test.other";
    const TIMEOUT: Duration = Duration::from_secs(3600);

    async fn run(self, _: &Context) -> Result<Done, JobError> {
        Ok(Done::Succeeded)
    }
}

fn other() -> NewJob {
    NewJob::new(&Other, Requester::system(), Trigger::Api).unwrap()
}

fn by_kind(most: u32) -> Limits {
    Limits { kinds: [(Probe::KIND.to_owned(), most)].into(), subscription: None }
}

fn by_subscription(most: u32) -> Limits {
    Limits { subscription: Some(most), ..Limits::default() }
}

/// A worker that runs both kinds under these limits.
fn under(limits: &Limits) -> Capability {
    Capability { kinds: vec![Probe::KIND, Other::KIND], limits: limits.clone(), ..worker(&[]) }
}

async fn take_under(db: &Database, limits: &Limits, free: usize) -> Vec<job::Model> {
    claim::claim(db, &under(limits), free).await.unwrap()
}

async fn crowd(db: &Database, count: usize, one: impl Fn() -> NewJob) -> Vec<Uuid> {
    let write = db.begin().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        let new = one();
        ids.push(new.id);
        put_into(&*write, &new).await.unwrap();
    }
    write.commit().await.unwrap();
    ids
}

fn ids(jobs: &[job::Model]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.id).collect()
}

async fn aside(db: &Database) -> u64 {
    job::Entity::find().filter(job::Column::OverLimit.is_not_null()).count(db.reader()).await.unwrap()
}

async fn of_a_kind_no_more_run_than_may(test: TestDatabase) {
    let (db, limits) = (&test.database, by_kind(2));
    let queued = crowd(db, 5, probe).await;
    let free = put(db, other()).await;
    let taken = take_under(db, &limits, 10).await;
    assert_eq!(ids(&taken), [queued[0], queued[1], free.id], "in their order, and the other kind beside them");
    assert_eq!(take_under(db, &limits, 10).await, []);
    let over = read(db, queued[2]).await;
    assert_eq!((over.state, over.waiting_for), (JobState::Waiting, Some(WaitingFor::Quota)));
    assert_eq!((over.epoch, over.attempt, over.started_at), (0, 0, None));
    let queues = overview::queues(db).await.unwrap();
    assert_eq!((queues[Probe::KIND].waiting, queues[Probe::KIND].running), (3, 2));
    assert!(queues[Probe::KIND].oldest.is_some(), "they are due");
    assert!(finish(db, &held(&taken[0]), success()).await);
    let next = take_under(db, &limits, 10).await;
    assert_eq!(ids(&next), [queued[2]], "the place is filled by the next");
    assert_eq!((next[0].state, next[0].waiting_for, next[0].over_limit.as_deref()), (JobState::Running, None, None));
    assert_eq!((next[0].epoch, next[0].attempt), (1, 1));
}

async fn of_a_subscription_no_more_run_than_may(test: TestDatabase) {
    let (db, limits) = (&test.database, by_subscription(2));
    let (one, two) = (ids::new(), ids::new());
    crowd(db, 4, || probe().of_subscription(one)).await;
    crowd(db, 1, || other().of_subscription(one)).await;
    crowd(db, 1, || probe().of_subscription(two)).await;
    crowd(db, 3, probe).await;
    let taken = take_under(db, &limits, 10).await;
    let of = |subscription| taken.iter().filter(|job| job.subscription_id == subscription).count();
    assert_eq!((of(Some(one)), of(Some(two)), of(None)), (2, 1, 3), "of none there is no limit");
    assert_eq!(take_under(db, &limits, 10).await, []);
    assert_eq!(aside(db).await, 3);
}

async fn both_limits_hold_at_once(test: TestDatabase) {
    let db = &test.database;
    let limits = Limits { subscription: Some(1), ..by_kind(2) };
    let [one, two, three] = [ids::new(), ids::new(), ids::new()];
    crowd(db, 20, || probe().of_subscription(one)).await;
    crowd(db, 1, || probe().of_subscription(two)).await;
    crowd(db, 1, || probe().of_subscription(three)).await;
    crowd(db, 1, || other().of_subscription(three)).await;
    let taken = take_under(db, &limits, 10).await;
    let mut of: Vec<_> = taken.iter().map(|job| (job.kind.as_str(), job.subscription_id.unwrap())).collect();
    of.sort_unstable();
    let mut expected = [(Probe::KIND, one), (Probe::KIND, two), (Other::KIND, three)];
    expected.sort_unstable();
    assert_eq!(of, expected);
    let of_two = taken.iter().find(|job| job.subscription_id == Some(two)).unwrap();
    assert!(finish(db, &held(of_two), success()).await);
    assert_eq!(
        take_under(db, &limits, 10).await,
        [],
        "the kind has room, the first and the third subscription have none"
    );
    let of_three = taken.iter().find(|job| job.subscription_id == Some(three)).unwrap();
    assert!(finish(db, &held(of_three), success()).await);
    let next = take_under(db, &limits, 10).await;
    assert_eq!(
        next.iter().map(|job| job.subscription_id).collect::<Vec<_>>(),
        [Some(three)],
        "past the crowd's twenty"
    );
}

async fn every_way_of_letting_go_frees_the_place(test: TestDatabase) {
    let (db, limits) = (&test.database, by_kind(1));
    let later = Duration::from_secs(3600);
    let ways = [
        success(),
        failure("broken"),
        Outcome::Retry { reason: reason("throttled"), after: later },
        Outcome::Snooze { waiting_for: WaitingFor::Snooze, after: later },
        Outcome::FannedOut(vec![other().not_before(Some(clock::now(db.reader()).await.unwrap() + later))]),
    ];
    crowd(db, ways.len() + 4, probe).await;
    let one = async || {
        let mut taken = take_under(db, &limits, 5).await;
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(take_under(db, &limits, 5).await, []);
        taken.remove(0)
    };
    for way in ways {
        assert!(finish(db, &held(&one().await), way).await);
    }
    let given_back = one().await;
    assert!(finish(db, &held(&given_back), Outcome::GivenBack).await);
    let again = one().await;
    assert_eq!(again.id, given_back.id, "at its old place");
    lapse(db, again.id).await;
    claim::rescue(db).await.unwrap();
    let rescued = one().await;
    assert_eq!((rescued.id, rescued.rescues), (again.id, 1));
    let write = db.begin().await.unwrap();
    control::pause(&*write, rescued.id).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(take_under(db, &limits, 5).await, [], "its attempt has not stopped");
    assert!(finish(db, &held(&rescued), Outcome::GivenBack).await);
    let canceled = one().await;
    let write = db.begin().await.unwrap();
    control::cancel(&*write, canceled.id).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(take_under(db, &limits, 5).await, []);
    lapse(db, canceled.id).await;
    claim::rescue(db).await.unwrap();
    assert_eq!(read(db, canceled.id).await.state, JobState::Canceled);
    one().await;
}

async fn those_aside_are_canceled_paused_and_expire_like_others(test: TestDatabase) {
    let (db, limits) = (&test.database, by_kind(1));
    let queued = crowd(db, 4, probe).await;
    let running = take_under(db, &limits, 1).await.remove(0);
    take_under(db, &limits, 1).await;
    assert_eq!(aside(db).await, 3);
    let write = db.begin().await.unwrap();
    control::cancel(&*write, queued[1]).await.unwrap();
    control::pause(&*write, queued[2]).await.unwrap();
    write.commit().await.unwrap();
    let canceled = read(db, queued[1]).await;
    assert_eq!((canceled.state, canceled.over_limit), (JobState::Canceled, None));
    let paused = read(db, queued[2]).await;
    assert_eq!((paused.waiting_for, paused.over_limit), (Some(WaitingFor::Pause), None));
    change(db, queued[3], &format!("deadline_at = {}", clock::sql(db.backend(), -1000))).await;
    claim::expire(db).await.unwrap();
    let late = read(db, queued[3]).await;
    assert_eq!((late.state, late.over_limit, late.turn), (JobState::Failed, None, None));
    assert_eq!(late.error_code.as_deref(), Some("deadline_exceeded"));
    let write = db.begin().await.unwrap();
    control::resume(&*write, queued[2]).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(take_under(db, &limits, 1).await, [], "it comes back into line and steps aside again");
    assert_eq!(read(db, queued[2]).await.waiting_for, Some(WaitingFor::Quota));
    assert!(finish(db, &held(&running), success()).await);
    assert_eq!(ids(&take_under(db, &limits, 1).await), [queued[2]]);
}

async fn a_crowd_aside_holds_up_nobody(test: TestDatabase) {
    let (db, limits) = (&test.database, Limits { subscription: Some(2), ..by_kind(50) });
    let (crowded, quiet) = (ids::new(), ids::new());
    // more than one look goes past, whom this worker may not claim
    crowd(db, 1100, || other().priority(1).on_workers(Some("elsewhere".to_owned()))).await;
    crowd(db, 3000, || probe().of_subscription(crowded)).await;
    let behind = crowd(db, 1, || other().priority(-1)).await;
    assert_eq!(take_under(db, &limits, 3).await.len(), 2);
    assert_eq!(ids(&take_under(db, &limits, 3).await), behind, "behind all of them");
    assert_eq!(aside(db).await, 2998);
    let quiet = put(db, probe().of_subscription(quiet)).await;
    assert_eq!(ids(&take_under(db, &limits, 3).await), [quiet.id]);
    let new = put(db, probe().of_subscription(crowded)).await;
    assert_eq!(new.turn, Some(3000), "behind those of its own that stand aside");
}

async fn those_aside_take_turns_with_later_ones(test: TestDatabase) {
    let (db, limits) = (&test.database, by_subscription(1));
    let (crowded, quiet) = (ids::new(), ids::new());
    crowd(db, 200, || probe().of_subscription(crowded)).await;
    let mut running = take_under(db, &limits, 1).await.remove(0);
    // the crowd steps aside but for a newcomer, who has the last place
    take_under(db, &limits, 1).await;
    crowd(db, 1, || probe().of_subscription(crowded)).await;
    let wanted = put(db, probe().of_subscription(quiet)).await.id;
    // one slot: whoever comes first gets it
    for waited in 0.. {
        assert!(waited < 2, "the crowd takes the slot every time");
        assert!(finish(db, &held(&running), success()).await);
        running = take_under(db, &limits, 1).await.remove(0);
        if running.id == wanted {
            break;
        }
    }
}

async fn a_lifted_limit_lets_them_back(test: TestDatabase) {
    let (db, limits) = (&test.database, by_kind(1));
    let bound = || probe().on_workers(Some("here".to_owned()));
    let (running, free, bound) = (put(db, probe()).await, crowd(db, 2, probe).await, put(db, bound()).await);
    let here = Capability { labels: vec!["here".to_owned()], ..under(&limits) };
    assert_eq!(ids(&claim::claim(db, &here, 5).await.unwrap()), [running.id]);
    assert_eq!(aside(db).await, 3);
    assert_eq!(limits::release(db, &by_kind(7)).await.unwrap(), 0, "another number is for claims to see");
    assert_eq!(take_under(db, &by_kind(2), 1).await.len(), 1);
    assert_eq!(limits::release(db, &Limits::default()).await.unwrap(), 2);
    let queued = read(db, free[1]).await;
    assert_eq!((queued.state, queued.waiting_for), (JobState::Queued, None));
    assert_eq!(read(db, bound.id).await.waiting_for, Some(WaitingFor::Worker));
    assert_eq!(ids(&take(db, 5).await), [free[1]]);
    // one that stood aside by its kind alone would hide others once subscriptions are limited as well
    crowd(db, 1, probe).await;
    assert_eq!(take_under(db, &limits, 5).await, []);
    assert!(limits::release(db, &Limits { subscription: Some(9), ..limits.clone() }).await.unwrap() > 0);
    assert_eq!(aside(db).await, 0);
}

async fn claimers_at_once_never_exceed_a_limit(test: TestDatabase) {
    const MOST: usize = 3;
    let limits = Limits { subscription: Some(2), ..by_kind(3) };
    let subscriptions = [ids::new(), ids::new(), ids::new()];
    for subscription in subscriptions {
        crowd(&test.database, 20, || probe().of_subscription(subscription)).await;
    }
    crowd(&test.database, 20, other).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (db, limits) = (test.another().await, limits.clone());
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        claimers.spawn(async move {
            loop {
                let taken = take_under(&db, &limits, 4).await;
                let limited = |job: &&job::Model| job.kind == Probe::KIND;
                let count = taken.iter().filter(limited).count();
                // from their claim's commit until before their end: never longer than they are held
                most.fetch_max(running.fetch_add(count, Ordering::SeqCst) + count, Ordering::SeqCst);
                within(&db, &limits).await;
                for job in &taken {
                    if limited(&job) {
                        running.fetch_sub(1, Ordering::SeqCst);
                    }
                    assert!(finish(&db, &held(job), success()).await);
                }
                let open = job::Entity::find().filter(job::Column::CompletedAt.is_null()).count(db.reader()).await;
                if open.unwrap() == 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    claimers.join_all().await;
    let most = most.load(Ordering::SeqCst);
    assert!((1..=MOST).contains(&most), "{most} at once");
    assert_eq!(aside(&test.database).await, 0);
}

/// What is held, by one look.
async fn within(db: &Database, limits: &Limits) {
    let held = job::Entity::find().filter(job::Column::LeaseUntil.is_not_null()).all(db.reader()).await.unwrap();
    for (kind, most) in &limits.kinds {
        let count = held.iter().filter(|job| job.kind == *kind).count();
        assert!(count <= *most as usize, "{count} of {kind}");
    }
    for job in held.iter().filter(|job| job.subscription_id.is_some()) {
        let count = held.iter().filter(|other| other.subscription_id == job.subscription_id).count();
        assert!(limits.subscription.is_none_or(|most| count <= most as usize), "{count} of one subscription");
    }
}

/// After every step the limits hold, and after every claim with slots to spare whoever is due is held up by a limit alone.
async fn random_steps_keep_the_limits_and_leave_no_place_empty(test: TestDatabase) {
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
    let (db, limits) = (&test.database, Limits { subscription: Some(2), ..by_kind(3) });
    let subscriptions = [None, Some(ids::new()), Some(ids::new())];
    let steps = proptest::collection::vec((0..8_usize, 0..1000_usize, 0..3_usize, -1..2_i32), 250);
    let steps = steps.new_tree(&mut TestRunner::default()).unwrap().current();
    for (number, (step, which, subscription, priority)) in steps.iter().enumerate() {
        let open = job::Entity::find().filter(job::Column::CompletedAt.is_null()).all(db.reader()).await.unwrap();
        let holding: Vec<&job::Model> = open.iter().filter(|job| job.lease_until.is_some()).collect();
        let said = format!("step {number} of {steps:?}");
        match step {
            0..=2 => {
                let new = if which % 3 == 0 { other() } else { probe() }.priority(*priority);
                let new = subscriptions[*subscription].into_iter().fold(new, NewJob::of_subscription);
                put(db, if which % 7 == 0 { new.lock(format!("lock-{}", which % 2)) } else { new }).await;
            }
            3 | 4 if !holding.is_empty() => {
                let ends = [success(), Outcome::GivenBack, failure("broken")];
                let job = holding[which % holding.len()];
                assert!(finish(db, &held(job), ends[which % 3].clone()).await, "{said}");
            }
            5 if !holding.is_empty() => {
                lapse(db, holding[which % holding.len()].id).await;
                claim::rescue(db).await.unwrap();
            }
            6 if !open.is_empty() => {
                let (id, write) = (open[which % open.len()].id, db.begin().await.unwrap());
                match which % 3 {
                    0 => drop(control::cancel(&*write, id).await.unwrap()),
                    1 => drop(control::pause(&*write, id).await.unwrap()),
                    _ => drop(control::resume(&*write, id).await.unwrap()),
                }
                write.commit().await.unwrap();
            }
            _ => {
                take_under(db, &limits, 1 + which % 3).await;
            }
        }
        within(db, &limits).await;
        if which % 5 == 0 {
            while !take_under(db, &limits, 50).await.is_empty() {
                within(db, &limits).await;
            }
            none_is_left_without_reason(db, &limits, &said).await;
        }
    }
}

async fn none_is_left_without_reason(db: &Database, limits: &Limits, said: &str) {
    let open = job::Entity::find().filter(job::Column::CompletedAt.is_null()).all(db.reader()).await.unwrap();
    let holding: Vec<&job::Model> = open.iter().filter(|job| job.lease_until.is_some()).collect();
    for job in open.iter().filter(|job| job.due_at.is_some()) {
        let of_kind = holding.iter().filter(|other| other.kind == job.kind).count();
        let of_subscription = holding.iter().filter(|other| other.subscription_id == job.subscription_id).count();
        let full = limits.kinds.get(&job.kind).is_some_and(|most| of_kind >= *most as usize)
            || job.subscription_id.is_some() && of_subscription >= limits.subscription.unwrap() as usize;
        let locked = job.lock_key.is_some() && holding.iter().any(|other| other.lock_key == job.lock_key);
        let last_chance = job.rescues == 2;
        assert!(full || locked || last_chance, "{job:?}\n{said}");
        assert!(!full || locked || last_chance || job.waiting_for == Some(WaitingFor::Quota), "{job:?}\n{said}");
    }
}
