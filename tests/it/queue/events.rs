//! What happened to jobs is written with it, in one order, and told to everybody who follows.

use super::{family::family, *};
use keywright_entities::{job_event, scope::Scope};
use keywright_jobs::queue::{
    control,
    events::{Filter, Happened},
    feed::{Feed, Following, Interest, News},
    wake::Wake,
};
use keywright_tests::{app::PATIENCE, database::TestDatabase, on_both_databases};
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;

on_both_databases!(
    an_event_is_there_exactly_when_its_change_is,
    every_way_through_the_queue_is_told,
    numbers_have_no_gaps_and_each_job_keeps_its_order,
    a_follower_that_does_not_keep_up_reads_on_in_the_table,
    who_follows_all_sees_only_what_they_may,
    nobody_who_comes_in_between_misses_anything,
);

/// The feed of a process of its own.
async fn feed(test: &TestDatabase) -> (Feed, tokio_util::sync::DropGuard) {
    let (database, stop) = (test.another().await, CancellationToken::new());
    let wake = Wake::start(&database, stop.clone());
    (Feed::start(database, &wake, Duration::from_millis(500), stop.clone()), stop.drop_guard())
}

fn all(visible: Scope) -> Interest {
    Interest::Jobs(Filter { kinds: None, subscription: None, visible })
}

/// All that is kept.
async fn kept(feed: &Feed, interest: &Interest) -> Vec<Arc<Happened>> {
    let (_, newest) = feed.bounds().await.unwrap();
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let (events, more) = feed.read(interest, after).await.unwrap();
        found.extend(events);
        match more {
            Some(more) => after = more,
            None => break,
        }
    }
    assert!(found.iter().all(|happened| happened.event.seq <= newest));
    found
}

async fn told(following: &mut Following) -> Option<job_event::Model> {
    let news = tokio::time::timeout(PATIENCE, async {
        loop {
            match following.news(Instant::now()).await {
                News::Event(happened) => return Some(happened.event.clone()),
                News::Progress(_) => {}
                News::LetGo => return None,
            }
        }
    });
    news.await.expect("the follower is told")
}

fn words(events: &[Arc<Happened>], job: Uuid) -> Vec<String> {
    let of_job = events.iter().filter(|happened| happened.event.job_id == job);
    of_job
        .map(|happened| match happened.event.waiting_for {
            Some(what) => format!("{}/{what}", happened.event.state),
            None => happened.event.state.to_string(),
        })
        .collect()
}

async fn an_event_is_there_exactly_when_its_change_is(test: TestDatabase) {
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let write = db.begin().await.unwrap();
    put_into(&*write, &probe()).await.unwrap();
    write.rollback().await.unwrap();
    assert_eq!(feed.bounds().await.unwrap(), (0, 0));
    let job = put(db, probe()).await;
    assert_eq!(feed.bounds().await.unwrap(), (1, 1), "what was taken back has no number");
    let claimed = take_one(db).await;
    // a change that clients see in the row alone is no event
    change(db, job.id, "version = version + 1").await;
    let write = db.begin().await.unwrap();
    outcome::record(&*write, &held(&claimed), success()).await.unwrap();
    drop(write);
    assert!(finish(db, &held(&claimed), success()).await);
    assert!(!finish(db, &held(&claimed), success()).await);
    let events = kept(&feed, &Interest::Job { id: job.id, parent: None }).await;
    assert_eq!(words(&events, job.id), ["queued", "running", "succeeded"]);
    let ended = read(db, job.id).await;
    let event = &events.last().unwrap().event;
    assert_eq!((event.version, event.attempt, event.rescues), (ended.version, ended.attempt, ended.rescues));
    // the trigger reads the clock once more than the statement
    assert!((event.at - ended.completed_at.unwrap()).num_seconds().abs() < 60, "{event:?}");
}

async fn every_way_through_the_queue_is_told(test: TestDatabase) {
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let retry = || Outcome::Retry { reason: reason("invalid_reply"), after: Duration::from_secs(60) };
    let job = put(db, probe()).await;
    assert!(finish(db, &held(&take_one(db).await), retry()).await);
    let write = db.begin().await.unwrap();
    control::pause(&*write, job.id).await.unwrap();
    control::resume(&*write, job.id).await.unwrap();
    write.commit().await.unwrap();
    make_due(db, job.id).await;
    assert!(finish(db, &held(&take_one(db).await), Outcome::GivenBack).await);
    take_one(db).await;
    lapse(db, job.id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    take_one(db).await;
    let write = db.begin().await.unwrap();
    control::cancel(&*write, job.id).await.unwrap();
    write.commit().await.unwrap();
    lapse(db, job.id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let events = kept(&feed, &all(Scope::All)).await;
    let expected = [
        "queued",
        "running",
        "waiting/retry",
        "waiting/pause",
        "waiting/retry",
        "running",
        "queued",
        "running",
        "queued",
        "running",
        "canceling",
        "canceled",
    ];
    assert_eq!(words(&events, job.id), expected);
    assert_eq!(events[2].event.error_code.as_deref(), Some("invalid_reply"));
    // one that is bound to a worker, one that is late, and one that has failed before it began
    let bound = put(db, probe().on_workers(Some("dmz".to_owned()))).await;
    let late = put(db, probe()).await;
    let past = clock::sql(db.backend(), -1000);
    change(db, late.id, &format!("deadline_at = {past}")).await;
    claim::expire(db).await.unwrap();
    let failed = put(db, probe().failed_already(reason("permission_denied"))).await;
    let events = kept(&feed, &all(Scope::All)).await;
    assert_eq!(words(&events, bound.id), ["waiting/worker"]);
    assert_eq!(words(&events, late.id), ["queued", "failed"]);
    assert_eq!(words(&events, failed.id), ["queued", "failed"]);
}

async fn numbers_have_no_gaps_and_each_job_keeps_its_order(test: TestDatabase) {
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let (parent, children) = family(db, 24).await;
    let interest = Interest::Job { id: parent.id, parent: None };
    let mut following = feed.follow(&interest).await.unwrap();
    let (_, begun) = feed.bounds().await.unwrap();
    let mut ending = tokio::task::JoinSet::new();
    for chunk in take(db, 24).await.chunks(3).map(<[job::Model]>::to_vec) {
        let db = test.another().await;
        ending.spawn(async move {
            for child in chunk {
                assert!(finish(&db, &held(&child), success()).await);
            }
        });
    }
    ending.join_all().await;
    let mut heard = Vec::new();
    loop {
        let event = told(&mut following).await.expect("it keeps up");
        let last = event.job_id == parent.id && event.state.is_done();
        heard.push(event);
        if last {
            break;
        }
    }
    let events = kept(&feed, &interest).await;
    let numbers: Vec<i64> = events.iter().map(|happened| happened.event.seq).collect();
    assert_eq!(numbers, (1..=i64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
    for child in children {
        assert_eq!(words(&events, child.id), ["queued", "running", "succeeded"]);
    }
    assert_eq!(words(&events, parent.id), ["queued", "running", "succeeded"]);
    let last = &events.last().unwrap().event;
    assert_eq!(
        (last.job_id, last.version),
        (parent.id, read(db, parent.id).await.version),
        "nothing comes after the end"
    );
    assert_eq!(last.scopes.as_ref().unwrap()["succeeded"], 24);
    let missed: Vec<job_event::Model> = events.iter().map(|happened| happened.event.clone()).collect();
    let missed = &missed[usize::try_from(begun).unwrap()..];
    assert!(heard.ends_with(missed), "who followed heard the same");
}

/// The one that writes first commits last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_late_is_not_lost() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let (other, _other_stop) = self::feed(&test).await;
    let mut following = feed.follow(&all(Scope::All)).await.unwrap();
    let (first, second) = (probe(), probe());
    let slow = db.begin().await.unwrap();
    put_into(&*slow, &first).await.unwrap();
    put(db, second.clone()).await;
    let told_first = told(&mut following).await.unwrap();
    assert_eq!((told_first.job_id, told_first.seq), (second.id, 1));
    assert_eq!(other.bounds().await.unwrap(), (1, 1), "what is not committed has no number");
    slow.commit().await.unwrap();
    let told_second = told(&mut following).await.unwrap();
    assert_eq!((told_second.job_id, told_second.seq), (first.id, 2));
    // another process reads the same
    let again: Vec<_> = kept(&other, &all(Scope::All)).await.iter().map(|happened| happened.event.clone()).collect();
    assert_eq!(again, [told_first, told_second]);
    // and what one has read while the other was still writing, neither reads twice
    let (events, _) = other.read(&all(Scope::All), 1).await.unwrap();
    assert_eq!(events.iter().map(|happened| happened.event.job_id).collect::<Vec<_>>(), [first.id]);
}

async fn a_follower_that_does_not_keep_up_reads_on_in_the_table(test: TestDatabase) {
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let interest = all(Scope::All);
    let mut slow = feed.follow(&interest).await.unwrap();
    let mut other = feed.follow(&interest).await.unwrap();
    let many: Vec<NewJob> = (0..2500).map(|_| probe()).collect();
    let write = db.begin().await.unwrap();
    enqueue_all(&*write, &many).await.unwrap();
    write.commit().await.unwrap();
    let mut heard = 0;
    while told(&mut slow).await.is_some() {
        heard += 1;
        if heard == 1 {
            // by then the feed has told all to whoever takes it
            while kept_up(&mut other).await < 2500 {}
        }
    }
    assert!((1..2500).contains(&heard), "it was let go after {heard}");
    let mut again = feed.follow(&interest).await.unwrap();
    let (mut after, mut missed) = (heard, 0);
    while let (events, Some(more)) = feed.read(&interest, after).await.unwrap() {
        (after, missed) = (more, missed + events.len());
    }
    let (events, _) = feed.read(&interest, after).await.unwrap();
    assert_eq!(heard + i64::try_from(missed + events.len()).unwrap(), 2500);
    let late = put(db, probe()).await;
    assert_eq!(told(&mut again).await.unwrap().job_id, late.id);
}

/// The number of the last event that this follower hears; when it was let go, of the last that there is.
async fn kept_up(following: &mut Following) -> i64 {
    told(following).await.map_or(i64::MAX, |event| event.seq)
}

async fn who_follows_all_sees_only_what_they_may(test: TestDatabase) {
    let (db, (feed, _stop)) = (&test.database, feed(&test).await);
    let (mine, theirs) = (ids::new(), ids::new());
    let restricted = |ids: &[Uuid]| all(Scope::Subscriptions(ids.to_vec()));
    let mut following = feed.follow(&restricted(&[mine])).await.unwrap();
    let scan = |subscriptions: &[Uuid]| {
        use keywright_entities::types::ScanMode;
        use keywright_jobs::kinds::discovery::scan::Scan;
        let payload = Scan { mode: ScanMode::Full, subscriptions: subscriptions.to_vec(), only: None };
        NewJob::new(&payload, Requester::system(), Trigger::Api).unwrap()
    };
    let hidden = [
        put(db, probe()).await.id,
        put(db, probe().of_subscription(theirs)).await.id,
        put(db, scan(&[mine, theirs])).await.id,
        put(db, scan(&[])).await.id,
    ];
    let parent = put(db, scan(&[mine, theirs])).await;
    // a part that is theirs to see is still told in the stream of its parent, which is not
    put(db, probe().child_of(parent.id).of_subscription(mine)).await;
    let seen = [put(db, probe().of_subscription(mine)).await.id, put(db, scan(&[mine])).await.id];
    let part = put(db, probe().child_of(seen[1]).of_subscription(mine)).await.id;
    for id in [seen[0], seen[1], part] {
        assert_eq!(told(&mut following).await.unwrap().job_id, id);
    }
    let jobs = async |interest: &Interest| -> Vec<Uuid> {
        kept(&feed, interest).await.iter().map(|happened| happened.event.job_id).collect()
    };
    assert_eq!(jobs(&restricted(&[mine])).await, [seen[0], seen[1], part]);
    assert!(jobs(&restricted(&[])).await.is_empty());
    assert_eq!(jobs(&all(Scope::All)).await.len(), 9);
    assert_eq!(jobs(&restricted(&[mine, theirs])).await.len(), 7);
    let of = |subscription, kind: Option<&str>| {
        let kinds = kind.map(|kind| vec![kind.to_owned()]);
        Interest::Jobs(Filter { kinds, subscription: Some(subscription), visible: Scope::All })
    };
    assert_eq!(jobs(&of(theirs, None)).await, [hidden[1], hidden[2], parent.id]);
    assert_eq!(jobs(&of(mine, Some("discovery.scan"))).await.len(), 5, "parts go by their parent's kind");
}

async fn nobody_who_comes_in_between_misses_anything(test: TestDatabase) {
    const JOBS: i64 = 300;
    let (feed, _stop) = feed(&test).await;
    let writer = test.another().await;
    let writing = tokio::spawn(async move {
        for _ in 0..JOBS {
            put(&writer, probe()).await;
        }
    });
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        // each comes when the one before has heard something
        let mut following = feed.follow(&all(Scope::All)).await.unwrap();
        let (events, more) = feed.read(&all(Scope::All), 0).await.unwrap();
        assert_eq!(more, None);
        let mut heard: Vec<i64> = events.iter().map(|happened| happened.event.seq).collect();
        if heard.last() < Some(&JOBS) {
            let seq = told(&mut following).await.unwrap().seq;
            heard.extend((heard.last() < Some(&seq)).then_some(seq));
        }
        followers.spawn(async move {
            while heard.last() < Some(&JOBS) {
                let seq = told(&mut following).await.unwrap().seq;
                heard.extend((heard.last() < Some(&seq)).then_some(seq));
            }
            assert_eq!(heard, (1..=JOBS).collect::<Vec<_>>());
        });
    }
    writing.await.unwrap();
    followers.join_all().await;
}
