//! Long because each way in which a writer can leave a group is tried with others that wait, in one fixture.

use super::*;
use crate::setup::database::{Database, Write, is_transient};
use futures::FutureExt;
use sea_orm::{ConnectionTrait, FromQueryResult, Statement};
use std::{future::Future, path::Path, pin::Pin, task};
use tokio::task::{JoinHandle, yield_now};

/// Longer than any test: only the tests that are about the limit reach it.
const NEVER: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    db: Database,
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = open(folder.path()).await;
        let write = db.begin().await.unwrap();
        for sql in [
            "CREATE TABLE counter (n INTEGER NOT NULL)",
            "INSERT INTO counter VALUES (0)",
            "CREATE TABLE note (text TEXT NOT NULL UNIQUE)",
            "CREATE TABLE promise (text TEXT REFERENCES note (text) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            write.execute_unprepared(sql).await.unwrap();
        }
        write.commit().await.unwrap();
        Self { db, folder }
    }

    fn waiting(&self) -> usize {
        self.db.turns.as_ref().unwrap().lock().waiting.len()
    }

    async fn until_waiting(&self, count: usize) {
        let all = async {
            while self.waiting() < count {
                yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
    }

    /// Starts a write that waits for its turn, and returns once it does.
    async fn queue<T, F>(&self, write: impl FnOnce(Database) -> F) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let before = self.waiting();
        let queued = tokio::spawn(write(self.db.clone()));
        self.until_waiting(before + 1).await;
        queued
    }

    /// The texts that are committed.
    async fn notes(&self) -> Vec<String> {
        notes(self.db.reader()).await
    }

    /// The commits in the write-ahead log, which is far too short here to begin anew: frames that name a size end one.
    fn commits(&self) -> usize {
        let log = std::fs::read(self.folder.path().join("keywright.db-wal")).unwrap();
        let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        let frame = 24 + word(8) as usize;
        (32..log.len()).step_by(frame).filter(|at| word(at + 4) != 0).count()
    }

    /// Nobody holds the turn or the file.
    async fn is_free(&self) {
        let other = open(self.folder.path()).await;
        let free = async {
            let write = other.begin().await.unwrap();
            write.execute_unprepared("UPDATE counter SET n = n").await.unwrap();
            write.commit().await.unwrap();
            while self.db.turns.as_ref().unwrap().lock().taken {
                yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.expect("the file is still locked");
    }
}

async fn open(folder: &Path) -> Database {
    let mut db = Database::open(&format!("sqlite://{}/keywright.db", folder.display()), 4).await.unwrap();
    db.turns = Some(Turns::with_longest_group(db.committed(), NEVER));
    db
}

async fn notes(db: &impl ConnectionTrait) -> Vec<String> {
    #[derive(FromQueryResult)]
    struct Note {
        text: String,
    }
    let all = Statement::from_string(db.get_database_backend(), "SELECT text FROM note ORDER BY text");
    Note::find_by_statement(all).all(db).await.unwrap().into_iter().map(|note| note.text).collect()
}

async fn note(write: &Write, text: &str) {
    let insert =
        Statement::from_sql_and_values(write.get_database_backend(), "INSERT INTO note VALUES ($1)", [text.into()]);
    write.execute_raw(insert).await.unwrap();
}

async fn noted(db: Database, text: &'static str) -> Result<(), DbErr> {
    let write = db.begin().await?;
    note(&write, text).await;
    write.commit().await
}

async fn increment(db: Database) -> Result<(), DbErr> {
    let write = db.begin().await?;
    write.execute_unprepared("UPDATE counter SET n = n + 1").await?;
    write.commit().await
}

async fn count(db: &Database) -> i64 {
    let one = Statement::from_string(db.backend(), "SELECT n FROM counter");
    db.reader().query_one_raw(one).await.unwrap().unwrap().try_get("", "n").unwrap()
}

/// Ends with `None` after so many polls, if the future has not ended by then.
struct Polls<F>(Pin<Box<F>>, usize);

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        let Some(left) = self.1.checked_sub(1) else { return task::Poll::Ready(None) };
        self.1 = left;
        let polled = self.0.as_mut().poll(cx).map(Some);
        if polled.is_pending() && left == 0 { task::Poll::Ready(None) } else { polled }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_share_one_commit() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    let all: Vec<_> = (0..64).map(|_| tokio::spawn(increment(at.db.clone()))).collect();
    at.until_waiting(64).await;
    let before = at.commits();
    first.commit().await.unwrap();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(count(&at.db).await, 64);
    assert_eq!(at.commits() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_an_end() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    let all: Vec<_> = (0..300).map(|_| tokio::spawn(increment(at.db.clone()))).collect();
    at.until_waiting(300).await;
    let before = at.commits();
    first.commit().await.unwrap();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!((count(&at.db).await, at.commits() - before), (300, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_held_up_when_a_group_has_been_open_for_long() {
    let mut at = Fixture::new().await;
    at.db.turns = Some(Turns::with_longest_group(at.db.committed(), Duration::ZERO));
    let first = at.db.begin().await.unwrap();
    let queued = at.queue(increment).await;
    note(&first, "first").await;
    // answered although the other has not had its turn yet
    first.commit().await.unwrap();
    queued.await.unwrap().unwrap();
    assert_eq!((at.notes().await, count(&at.db).await), (vec!["first".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alone_commits_at_once_and_a_dropped_one_leaves_no_trace() {
    let at = Fixture::new().await;
    noted(at.db.clone(), "kept").await.unwrap();
    let write = at.db.begin().await.unwrap();
    note(&write, "dropped").await;
    drop(write);
    let write = at.db.begin().await.unwrap();
    note(&write, "rolled back").await;
    write.rollback().await.unwrap();
    assert_eq!(at.notes().await, ["kept"]);
    at.is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_takes_back_the_others_keep() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    note(&first, "first").await;
    let back = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            note(&write, "rolled back").await;
            write.rollback().await
        })
        .await;
    let kept = at.queue(|db| noted(db, "third")).await;
    let dropped = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            note(&write, "dropped").await;
        })
        .await;
    let failed = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            note(&write, "with an error").await;
            write.execute_unprepared("INSERT INTO note VALUES ('first')").await.unwrap_err();
        })
        .await;
    let before = at.commits();
    let last = at.queue(|db| noted(db, "last")).await;
    first.commit().await.unwrap();
    for ended in [back, kept, last] {
        ended.await.unwrap().unwrap();
    }
    dropped.await.unwrap();
    failed.await.unwrap();
    assert_eq!(at.notes().await, ["first", "last", "third"]);
    assert_eq!(at.commits() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_fails_all_of_its_group() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    note(&first, "first").await;
    let broken = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            write.execute_unprepared("INSERT INTO promise VALUES ('nobody')").await.unwrap();
            write.commit().await
        })
        .await;
    let other = at.queue(|db| noted(db, "third")).await;
    let told = [first.commit().await, broken.await.unwrap(), other.await.unwrap()];
    for error in told.map(Result::unwrap_err) {
        assert!(error.to_string().contains("FOREIGN KEY"), "{error}");
    }
    assert_eq!(at.notes().await, Vec::<String>::new());
    at.is_free().await;
    noted(at.db.clone(), "afterwards").await.unwrap();
}

/// After some errors, such as a full disk, SQLite rolls the whole transaction back; here a member does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_sqlite_ended_is_an_error_for_all_of_its_group() {
    for (dropped, position) in [(true, 1), (true, 0), (false, 1), (false, 0)] {
        let at = Fixture::new().await;
        let hold = at.db.begin().await.unwrap();
        let mut queued = Vec::new();
        for index in 0..3 {
            if index == position {
                queued.push(
                    at.queue(move |db: Database| async move {
                        let write = db.begin().await?;
                        write.execute_unprepared("ROLLBACK").await?;
                        if dropped { Err(DbErr::RecordNotInserted) } else { write.commit().await }
                    })
                    .await,
                );
            } else {
                queued.push(at.queue(move |db| noted(db, ["a", "b", "c"][index])).await);
            }
        }
        // a member of the group when it waits for its commit, or the end of a group of its own
        let held = hold.commit().await;
        let mut answers = Vec::new();
        for one in queued {
            answers.push(one.await.unwrap());
        }
        let kept: Vec<String> = ["a", "b", "c"]
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .map(|(n, _)| (*n).to_owned())
            .collect();
        assert_eq!(at.notes().await, kept, "dropped {dropped}, position {position}: {answers:?}");
        assert!(answers[position].is_err());
        let lost = held.unwrap_err();
        assert!(is_transient(&lost), "{lost}");
        at.is_free().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_transaction_sqlite_ended_is_not_used_again() {
    let at = Fixture::new().await;
    let only = Database::open(at.db.url(), 1).await.unwrap();
    let write = only.begin().await.unwrap();
    write.execute_unprepared("ROLLBACK").await.unwrap();
    drop(write);
    noted(only.clone(), "afterwards").await.unwrap();
    assert_eq!(at.notes().await, ["afterwards"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_sees_those_before_it_and_ends_after_their_commit() {
    let at = Fixture::new().await;
    let (go, gone) = oneshot::channel();
    let first = at.db.begin().await.unwrap();
    note(&first, "first").await;
    let reads = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            let seen = notes(&*write).await;
            write.rollback().await.unwrap();
            (seen, notes(db.reader()).await)
        })
        .await;
    let last = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            gone.await.unwrap();
            write.commit().await
        })
        .await;
    let news = at.db.committed();
    // what the fixture told
    news.notified().now_or_never();
    let first = tokio::spawn(first.commit());
    while at.waiting() > 0 {
        yield_now().await;
    }
    assert_eq!(at.notes().await, Vec::<String>::new(), "not committed yet");
    assert!(!first.is_finished() && !reads.is_finished() && news.notified().now_or_never().is_none());
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    let (seen, committed) = reads.await.unwrap();
    assert_eq!((seen, committed), (vec!["first".to_owned()], vec!["first".to_owned()]));
    assert!(news.notified().now_or_never().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_are_kept_wherever_one_is_cancelled() {
    let at = Fixture::new().await;
    let (mut cancelled, mut whole) = (0, 0);
    for polls in 0..60 {
        for place in 0..3 {
            let write = at.db.begin().await.unwrap();
            write.execute_unprepared("DELETE FROM note").await.unwrap();
            write.commit().await.unwrap();
            let hold = at.db.begin().await.unwrap();
            let mut queued = Vec::new();
            let mut victim = None;
            for index in 0..3 {
                if index == place {
                    let running = Polls(Box::pin(noted(at.db.clone(), "victim")), polls);
                    victim = Some(tokio::spawn(running));
                    // polled for the first time, it waits in the queue or is gone
                    while at.waiting() < queued.len() + 1 && !victim.as_ref().unwrap().is_finished() {
                        yield_now().await;
                    }
                } else {
                    queued.push(at.queue(move |db| noted(db, ["a", "b", "c"][index])).await);
                }
            }
            hold.commit().await.unwrap();
            for one in queued {
                tokio::time::timeout(PATIENCE, one).await.expect("stranded").unwrap().unwrap();
            }
            let outcome = victim.unwrap().await.unwrap();
            let mut notes = at.notes().await;
            let was_written = notes.iter().any(|text| text == "victim");
            notes.retain(|text| text != "victim");
            assert_eq!(notes.len(), 2, "{notes:?}");
            match outcome {
                Some(done) => {
                    done.unwrap();
                    assert!(was_written);
                    whole += 1;
                }
                None => cancelled += 1,
            }
            at.is_free().await;
        }
    }
    assert!(cancelled > 9 && whole > 9, "{cancelled} were cancelled, {whole} were not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_members_have_all_gone_lets_go_of_the_file() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    note(&first, "first").await;
    let (_never, gone) = oneshot::channel::<()>();
    let second = at
        .queue(|db: Database| async move {
            let write = db.begin().await.unwrap();
            note(&write, "second").await;
            gone.await.unwrap_err();
            drop(write);
        })
        .await;
    let first = tokio::spawn(first.commit());
    while at.waiting() > 0 {
        yield_now().await;
    }
    first.abort();
    first.await.unwrap_err();
    second.abort();
    second.await.unwrap_err();
    at.is_free().await;
    assert_eq!(at.notes().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_its_own_waits_for_the_commit_and_not_for_the_file() {
    let at = Fixture::new().await;
    let first = at.db.begin().await.unwrap();
    note(&first, "first").await;
    let second = at.queue(|db| noted(db, "second")).await;
    let alone = at
        .queue(|db: Database| async move {
            let _turn = db.turn().await;
            let seen = notes(db.reader()).await;
            db.reader().execute_unprepared("INSERT INTO note VALUES ('alone')").await.unwrap();
            seen
        })
        .await;
    let third = at.queue(|db| noted(db, "third")).await;
    let all = async {
        first.commit().await.unwrap();
        assert_eq!(alone.await.unwrap(), ["first", "second"]);
        second.await.unwrap().unwrap();
        third.await.unwrap().unwrap();
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(at.notes().await, ["alone", "first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_urgent_go_first_and_wait_for_nobody() {
    let at = Fixture::new().await;
    let urgent = at.db.another(1).await.unwrap();
    let hold = at.db.begin().await.unwrap();
    let (_never, gone) = oneshot::channel::<()>();
    let slow = at
        .queue(|db: Database| async move {
            let _write = db.begin().await.unwrap();
            gone.await.unwrap_err();
        })
        .await;
    // a runtime of its own, like the renewer's
    let renewer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(noted(urgent, "urgent"))
    });
    at.until_waiting(2).await;
    hold.commit().await.unwrap();
    let joined = tokio::task::spawn_blocking(move || renewer.join().unwrap());
    tokio::time::timeout(PATIENCE, joined).await.unwrap().unwrap().unwrap();
    assert_eq!(at.notes().await, ["urgent"]);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_make_progress_on_one_file() {
    let at = Fixture::new().await;
    let url = at.db.url().to_owned();
    let (one, two) = (Database::open(&url, 4).await.unwrap(), Database::open(&url, 4).await.unwrap());
    // the first always has writers waiting, for as long as the second needs for its own
    let stop = tokio_util::sync::CancellationToken::new();
    let crowd: Vec<_> = (0..16)
        .map(|_| {
            let (db, stop) = (one.clone(), stop.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.is_cancelled() {
                    increment(db.clone()).await.unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    for _ in 0..10 {
        tokio::time::timeout(PATIENCE * 3, increment(two.clone())).await.expect("starved").unwrap();
    }
    stop.cancel();
    let mut total = 10;
    for writer in crowd {
        let done = writer.await.unwrap();
        assert!(done > 0);
        total += done;
    }
    assert_eq!(count(&one).await, total);
}
