//! Writing what became of attempts: those that end while another commit is under way share the next one.

use super::{
    chaos,
    lease::Held,
    outcome::{self, Outcome},
};
use crate::setup::database::{Database, is_transient};
use sea_orm::DbErr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many outcomes one transaction takes.
const MOST: usize = 500;

/// The writer of outcomes of one process. No attempt is told that its outcome is recorded before it is durable.
#[derive(Clone)]
pub struct Recorder {
    entries: mpsc::Sender<Entry>,
}

struct Entry {
    attempt: (Held, Outcome),
    tell: oneshot::Sender<Result<bool, Arc<DbErr>>>,
}

impl Recorder {
    /// Writes until the last handle is gone.
    pub fn start(database: Database) -> Self {
        let (entries, mut received) = mpsc::channel(MOST);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(MOST);
            while received.recv_many(&mut batch, MOST).await > 0 {
                write(&database, std::mem::take(&mut batch)).await;
            }
        });
        Self { entries }
    }

    /// Writes what became of an attempt. `false`: the lease was lost, nothing was written.
    ///
    /// # Errors
    /// When it could not be written now; also when its commit could not be told from one that failed.
    pub async fn record(&self, held: Held, outcome: Outcome) -> Result<bool, Arc<DbErr>> {
        let (tell, told) = oneshot::channel();
        let entry = Entry { attempt: (held, outcome), tell };
        let gone = || Arc::new(DbErr::Custom("the writer of outcomes has ended".to_owned()));
        self.entries.send(entry).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn write(database: &Database, batch: Vec<Entry>) {
    let (attempts, tell): (Vec<_>, Vec<_>) = batch.into_iter().map(|entry| (entry.attempt, entry.tell)).unzip();
    match try_write(database, &attempts).await {
        Ok(recorded) => tell.into_iter().zip(recorded).for_each(|(tell, recorded)| {
            // an attempt that was cut off does not listen any more
            let _ = tell.send(Ok(recorded));
        }),
        // one that cannot be written must not keep the others from it
        Err(error) if attempts.len() > 1 && !is_transient(&error) => {
            for (attempt, tell) in attempts.into_iter().zip(tell) {
                let recorded = try_write(database, &[attempt]).await;
                let _ = tell.send(recorded.map(|recorded| recorded.first() == Some(&true)).map_err(Arc::new));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for tell in tell {
                let _ = tell.send(Err(Arc::clone(&error)));
            }
        }
    }
}

async fn try_write(database: &Database, attempts: &[(Held, Outcome)]) -> Result<Vec<bool>, DbErr> {
    let write = database.begin().await?;
    let attempts = chaos::fences(&*write, attempts).await?;
    let recorded = outcome::record_all(&*write, &attempts).await?;
    write.commit().await?;
    Ok(recorded)
}
