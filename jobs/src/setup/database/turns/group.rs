//! An open transaction that several writers share.

use super::{Turn, away};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

/// A group of this many writers commits, whoever waits.
const MOST_MEMBERS: usize = 256;

/// An open transaction that several writers share.
pub(super) struct Group {
    pub(super) transaction: Arc<DatabaseTransaction>,
    /// The members that have ended well and wait for the commit.
    pub(super) ended: Vec<oneshot::Sender<Verdict>>,
    size: usize,
    full_at: Instant,
    pub(super) at: At,
}

/// Where the holder of the turn stands in the group's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// In the work of the first member, which needs no savepoint: there is nothing else to keep.
    First,
    /// Between two members: in an empty savepoint.
    Between,
    /// In the savepoint of a later member, or a member was dropped there.
    Within,
    /// Somebody was dropped while it looked whether the transaction is still open.
    Doubtful,
}

/// What a member that waits for its commit is told.
pub(super) enum Verdict {
    Ended(Result<(), DbErr>),
    /// Nobody else is left to commit.
    Finish(Turn),
}

impl Group {
    pub(super) fn new(transaction: Arc<DatabaseTransaction>, longest: Duration) -> Self {
        Self { transaction, ended: Vec::new(), size: 1, full_at: Instant::now() + longest, at: At::First }
    }

    pub(super) fn is_full(&self) -> bool {
        self.size >= MOST_MEMBERS || Instant::now() >= self.full_at
    }

    async fn run(&self, sql: &str) -> Result<(), DbErr> {
        let statement = Statement::from_string(self.transaction.get_database_backend(), sql);
        self.transaction.execute_raw(statement).await.map(|_| ())
    }

    /// Begins a later member's part, for which the one before it has made the savepoint.
    pub(super) async fn join(&mut self) -> Result<(), DbErr> {
        self.settle().await?;
        self.at = At::Within;
        self.size += 1;
        Ok(())
    }

    /// Ends a later member's part of the transaction.
    pub(super) async fn leave(&mut self, keep: bool) -> Result<(), DbErr> {
        let done = match (self.at, keep) {
            (At::First, _) => {
                self.check_open().await?;
                self.run("SAVEPOINT member").await
            }
            // one statement to the driver, for its way there is longer than SQLite's work
            (_, true) => self.run("RELEASE member; SAVEPOINT member").await,
            // which leaves the savepoint for the next one
            (_, false) => self.run("ROLLBACK TO member").await,
        };
        done.map_err(|error| if is_missing(&error) { ended_by_sqlite() } else { error })?;
        self.at = At::Between;
        Ok(())
    }

    /// Takes back what a dropped member left.
    async fn settle(&mut self) -> Result<(), DbErr> {
        match self.at {
            At::First | At::Between => return Ok(()),
            At::Within => self.check_open().await?,
            At::Doubtful => return Err(ended_by_sqlite()),
        }
        match self.run("ROLLBACK TO member").await {
            // dropped after its savepoint was released
            Err(error) if is_missing(&error) => self.run("SAVEPOINT member").await?,
            done => done?,
        }
        self.at = At::Between;
        Ok(())
    }

    /// SQLite ends a transaction by itself after some errors (a full disk), and would take the next savepoint for a new one.
    async fn check_open(&mut self) -> Result<(), DbErr> {
        let at = std::mem::replace(&mut self.at, At::Doubtful);
        // refused exactly while a transaction is open
        if self.run("BEGIN").await.is_ok() {
            return Err(ended_by_sqlite());
        }
        self.at = at;
        Ok(())
    }

    /// Commits, wakes those who wait for news, and answers the members.
    pub(super) async fn commit(mut self, committed: &Notify) -> Result<(), DbErr> {
        let done = match self.settle().await {
            Ok(()) => match Arc::into_inner(self.transaction) {
                Some(transaction) => transaction.commit().await,
                None => Err(away("a write was still using its transaction when it was committed".to_owned())),
            },
            Err(error) => Err(error),
        };
        if done.is_ok() {
            committed.notify_one();
        }
        for member in self.ended {
            // a member that has gone away wants no answer
            let _ = member.send(Verdict::Ended(done.clone()));
        }
        done
    }
}

/// The savepoint is not there.
fn is_missing(error: &DbErr) -> bool {
    error.to_string().contains("no such savepoint")
}

fn ended_by_sqlite() -> DbErr {
    away("SQLite ended the transaction after an error of another write in it".to_owned())
}
