//! Writes as a whole: kept or without a trace by what came of the work in them, and done again when PostgreSQL ended them so that
//! another transaction could go on.

use super::{Database, Write};
use futures::future::BoxFuture;
use sea_orm::{DbErr, RuntimeErr};

/// Serialization failure, deadlock.
const GAVE_WAY: &[&str] = &["40001", "40P01"];
/// How often a write is tried that gives way each time.
const TRIES: u32 = 5;

/// What came of a piece of work in [`Database::write`], with what it tells.
pub enum Written<T> {
    Kept(T),
    /// There was nothing to write.
    Nothing(T),
}

impl Database {
    /// Does `work` in a write, which leaves no trace when it asks for that; again, a few times, when PostgreSQL ended it so that
    /// another transaction that it had met head on could go on.
    ///
    /// # Errors
    /// Those of `work`, and of [`Write::commit`] and [`Write::rollback`].
    pub async fn write<T>(
        &self,
        work: impl for<'t> Fn(&'t Write) -> BoxFuture<'t, Result<Written<T>, DbErr>> + Send + Sync,
    ) -> Result<T, DbErr> {
        let mut tries = 1;
        loop {
            let write = self.begin().await?;
            let done = match work(&write).await {
                Ok(Written::Kept(told)) => write.commit().await.map(|()| told),
                // what was read may be another's that is not committed yet: it is told only once it is
                Ok(Written::Nothing(told)) => write.rollback().await.map(|()| told),
                Err(error) => write.rollback().await.and(Err(error)),
            };
            match done {
                Err(error) if tries < TRIES && gave_way(&error) => {
                    tracing::debug!(%error, tries, "gave way to another transaction; trying again");
                    tries += 1;
                }
                done => return done,
            }
        }
    }
}

impl Write {
    /// Ends it with what came of the work in it: made durable when that is `Ok`, without a trace otherwise. It holds no lock any more
    /// when this returns, and what `done` rests on is durable.
    ///
    /// # Errors
    /// That of `done`; as [`Write::commit`] and [`Write::rollback`].
    pub async fn settle<T, E: From<DbErr>>(self, done: Result<T, E>) -> Result<T, E> {
        match done {
            Ok(made) => self.commit().await.map(|()| made).map_err(E::from),
            Err(refusal) => {
                self.rollback().await?;
                Err(refusal)
            }
        }
    }
}

/// Whether PostgreSQL ended the transaction for the sake of another one: the same may succeed at once.
fn gave_way(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            error.as_database_error().and_then(|error| error.code()).is_some_and(|code| GAVE_WAY.contains(&&*code))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::ConnectionTrait;

    #[tokio::test]
    async fn what_is_settled_is_kept_or_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/keywright.db", folder.path().display());
        let database = Database::open(&url, 1).await.unwrap();
        for (table, done) in [("kept", Ok(7)), ("refused", Err(DbErr::Custom("no".to_owned())))] {
            let write = database.begin().await.unwrap();
            write.execute_unprepared(&format!("CREATE TABLE {table} (id INTEGER)")).await.unwrap();
            assert_eq!(write.settle(done.clone()).await, done);
        }
        database.reader().execute_unprepared("SELECT * FROM kept").await.unwrap();
        database.reader().execute_unprepared("SELECT * FROM refused").await.unwrap_err();
    }
}
