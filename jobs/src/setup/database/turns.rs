//! SQLite has one writer and each commit waits for the disk: the writers of a process take turns, and those that wait for one
//! another share a commit.
//!
//! The first writer begins a transaction. When it is done and others are waiting, it does not commit but passes the open
//! transaction on with the turn; each later writer is a savepoint in it. The last one, after whom nobody waits, commits, and
//! only then is any of them answered. Each sees what the members before it wrote, so none may tell anybody what it read before
//! it has ended by [`Shared::commit`] or [`Shared::rollback`], which both wait for the commit.
//!
//! Any of these futures may be dropped at any await. The turn is a value that finds its next holder when it is dropped, so
//! that neither a waiting writer nor a member that waits for its commit is ever left behind.

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

mod group;

use group::{At, Group, Verdict};

/// A group that began this long ago commits, whoever waits: its first member waits for its answer.
const LONGEST_GROUP: Duration = Duration::from_millis(25);
/// How long the writers of a process may follow one another before they leave the file to other processes,
const LONGEST_STREAK: Duration = Duration::from_millis(100);
/// and for how long they do: a process that finds the file locked looks again after some milliseconds.
const GIVE_WAY: Duration = Duration::from_millis(5);
/// A writer that could not begin for this long is told so.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The queue of the writers of one process.
pub(super) struct Turns {
    state: Mutex<State>,
    committed: Arc<Notify>,
    longest_group: Duration,
}

#[derive(Default)]
struct State {
    /// Somebody has the turn.
    taken: bool,
    waiting: VecDeque<Waiting>,
    /// Since when the turn was always taken.
    streak: Option<Instant>,
}

struct Waiting {
    tell: oneshot::Sender<Turn>,
    /// Can write in an open group.
    shares: bool,
}

impl Turns {
    pub(super) fn new(committed: Arc<Notify>) -> Arc<Self> {
        Self::with_longest_group(committed, LONGEST_GROUP)
    }

    fn with_longest_group(committed: Arc<Notify>, longest_group: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), committed, longest_group })
    }

    /// The turn for a statement on a connection of its own. An open group is committed before.
    pub(super) async fn alone(self: &Arc<Self>, urgent: bool) -> Turn {
        loop {
            // a group that could not be committed is its members' concern
            if let (Some(turn), _) = self.take(false, urgent).await.finish().await {
                turn.give_way().await;
                return turn;
            }
        }
    }

    /// A transaction, or a part of the one that is open.
    pub(super) async fn share(self: &Arc<Self>, db: &DatabaseConnection, urgent: bool) -> Result<Shared, DbErr> {
        let taking = async {
            loop {
                let turn = self.take(true, urgent).await;
                if !turn.group.as_ref().is_some_and(Group::is_full) {
                    return turn;
                }
                if let (Some(turn), _) = turn.finish().await {
                    return turn;
                }
            }
        };
        let mut turn = tokio::time::timeout(LONGEST_WAIT, taking).await.map_err(|_| {
            away(format!("other writes of this process did not end within {} s", LONGEST_WAIT.as_secs()))
        })?;
        if let Some(group) = &mut turn.group {
            match group.join().await {
                Ok(()) => return Ok(Shared { transaction: Arc::clone(&group.transaction), turn, urgent }),
                // it is lost to its members; this writer has written nothing yet
                Err(error) => turn.fail(&error),
            }
        }
        turn.give_way().await;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = Arc::new(db.begin_with_options(options).await?);
        turn.group = Some(Group::new(Arc::clone(&transaction), self.longest_group));
        Ok(Shared { transaction, turn, urgent })
    }

    /// Waits for the turn, in order; the urgent go before the others.
    async fn take(self: &Arc<Self>, shares: bool, urgent: bool) -> Turn {
        loop {
            let told = {
                let mut state = self.lock();
                if !state.taken {
                    state.taken = true;
                    state.streak = Some(Instant::now());
                    return Turn { turns: Some(Arc::clone(self)), group: None };
                }
                let (tell, told) = oneshot::channel();
                let waiting = Waiting { tell, shares };
                if urgent {
                    state.waiting.push_front(waiting);
                } else {
                    state.waiting.push_back(waiting);
                }
                told
            };
            if let Ok(turn) = told.await {
                return turn;
            }
        }
    }

    /// Gives the turn to the next writer; to a member of the open group, for its commit, when no writer waits; else to nobody.
    fn pass_on(self: Arc<Self>, mut group: Option<Group>) {
        loop {
            let writer = {
                let mut state = self.lock();
                let writer = state.waiting.pop_front();
                if writer.is_none() && group.is_none() {
                    (state.taken, state.streak) = (false, None);
                    return;
                }
                writer
            };
            let member = if writer.is_none() { group.as_mut().and_then(|group| group.ended.pop()) } else { None };
            let turn = Turn { turns: Some(Arc::clone(&self)), group: group.take() };
            let refused = match (writer, member) {
                (Some(writer), _) => writer.tell.send(turn).err(),
                (None, Some(member)) => match member.send(Verdict::Finish(turn)) {
                    Err(Verdict::Finish(turn)) => Some(turn),
                    _ => None,
                },
                // whoever wrote in it has gone away, so nobody was promised anything
                (None, None) => {
                    turn.dissolve();
                    continue;
                }
            };
            match refused {
                Some(turn) => group = turn.dissolve(),
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to write, and the group that is open meanwhile. Passed on when it is dropped.
pub struct Turn {
    turns: Option<Arc<Turns>>,
    group: Option<Group>,
}

impl Turn {
    /// Commits the open group and answers its members. Without the turn when the runtime was shut down over it.
    async fn finish(mut self) -> (Option<Self>, Result<(), DbErr>) {
        let (Some(group), Some(turns)) = (self.group.take(), self.turns.clone()) else { return (Some(self), Ok(())) };
        if group.ended.is_empty() {
            let done = group.commit(&turns.committed).await;
            return (Some(self), done);
        }
        // the other members are to be answered even when nobody waits for this future any more
        let committing = tokio::spawn(async move { (group.commit(&turns.committed).await, self) });
        match committing.await {
            Ok((done, turn)) => (Some(turn), done),
            Err(_) => (None, Err(unknown())),
        }
    }

    /// Tells the members of the open group that it is lost, and rolls it back.
    fn fail(&mut self, error: &DbErr) {
        for member in self.group.take().map(|group| group.ended).into_iter().flatten() {
            // a member that has gone away wants no answer
            let _ = member.send(Verdict::Ended(Err(error.clone())));
        }
    }

    /// Whether the next writer can go on in the open group.
    fn can_be_shared(&self) -> bool {
        let (Some(turns), Some(group)) = (&self.turns, &self.group) else { return false };
        let mut state = turns.lock();
        while state.waiting.front().is_some_and(|waiting| waiting.tell.is_closed()) {
            state.waiting.pop_front();
        }
        !group.is_full() && state.waiting.front().is_some_and(|waiting| waiting.shares)
    }

    /// Leaves the file to other processes for a moment when this one has kept it for long.
    async fn give_way(&self) {
        let Some(turns) = &self.turns else { return };
        let long = turns.lock().streak.is_some_and(|since| since.elapsed() > LONGEST_STREAK);
        if long {
            tokio::time::sleep(GIVE_WAY).await;
            turns.lock().streak = Some(Instant::now());
        }
    }

    /// Ends this value without passing the turn on.
    fn dissolve(mut self) -> Option<Group> {
        self.turns = None;
        self.group.take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        // work of the first member, which did not end: nobody else's is in it
        let group = self.group.take().filter(|group| group.at != At::First);
        turns.pass_on(group);
    }
}

/// One writer's part of a transaction. Dropped without an end, it leaves no trace.
pub(super) struct Shared {
    // before the turn, which is passed on when it is dropped
    pub(super) transaction: Arc<DatabaseTransaction>,
    turn: Turn,
    urgent: bool,
}

impl Shared {
    /// Returns when it is durable, which is when the whole group is.
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        self.end(true).await
    }

    /// Leaves no trace, and returns when what it read is durable.
    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        self.end(false).await
    }

    async fn end(self, keep: bool) -> Result<(), DbErr> {
        let Self { transaction, mut turn, urgent } = self;
        drop(transaction);
        let Some(group) = &mut turn.group else { return Err(unknown()) };
        if group.at == At::First && !keep {
            // nobody else's work is in it, and what it read was durable
            let transaction = turn.group.take().and_then(|group| Arc::into_inner(group.transaction));
            return match transaction {
                Some(transaction) => transaction.rollback().await,
                None => Err(unknown()),
            };
        }
        let shared = !urgent && turn.can_be_shared();
        let Some(group) = &mut turn.group else { return Err(unknown()) };
        // the first one has no savepoint to leave unless others follow
        if (group.at != At::First || shared)
            && let Err(error) = group.leave(keep).await
        {
            turn.fail(&error);
            return Err(error);
        }
        // the urgent wait for no one
        if !shared {
            return turn.finish().await.1;
        }
        let (tell, told) = oneshot::channel();
        group.ended.push(tell);
        drop(turn);
        match told.await {
            Ok(Verdict::Ended(done)) => done,
            Ok(Verdict::Finish(turn)) => turn.finish().await.1,
            Err(_) => Err(unknown()),
        }
    }
}

fn unknown() -> DbErr {
    away("the commit was given up before its outcome was known".to_owned())
}

/// An error after which the same write may succeed later.
fn away(what: String) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(what))
}

#[cfg(test)]
mod tests;
