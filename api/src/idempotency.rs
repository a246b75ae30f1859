//! Requests that create: made once however often they are sent, when the client names them with `Idempotency-Key`.
//!
//! A creating handler takes [`Once`], begins its write through it and ends it with [`Making::commit`], which keeps the answer
//! in the same transaction. There is no other way to answer 201 or 202 with [`crate::answer::Created`] or
//! [`crate::answer::Accepted`], and the document shows the header wherever [`Made`] is answered.
//!
//! ```text
//! async fn create(&self, caller: Caller<perm::…>, once: Once, body: Json<New>) -> Result<Made<Created<View>>, ApiError> {
//!     let write = match once.begin(&self.database).await? {
//!         Begun::New(write) => write,
//!         Begun::Replay(replay) => return Ok(replay.stored()),
//!     };
//!     let row = insert(&*write, body.0).await?;
//!     write.commit(Created::at(location(row.id), row.into())).await
//! }
//! ```
//!
//! What must hold for a replay too is checked before `begin`: a caller without the right is refused, not shown an old answer.

mod fingerprint;
mod in_flight;
mod pruning;
mod stored;

pub use self::fingerprint::{Fingerprint, FingerprintKey};
pub use self::in_flight::InFlight;
pub use self::pruning::prune;
pub use self::stored::{Made, Replay};

use self::{in_flight::Turn, stored::Stored};
use crate::{
    auth::Principal,
    error::{ApiError, Code},
};
use aws_lc_rs::digest::{Context, SHA256};
use keywright_entities::idempotency;
use keywright_jobs::setup::database::{Database, Write};
use poem::{FromRequest, IntoResponse, Request, RequestBody};
use poem_openapi::ApiResponse;
use sea_orm::{DbErr, RuntimeErr, SqlxError};
use std::{ops::Deref, time::Duration};

/// The header that names a request.
pub const KEY: &str = "Idempotency-Key";
/// The header that tells a replay.
pub const REPLAYED: &str = "Idempotent-Replayed";
/// How long a key keeps its answer, by the database's clock.
pub const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request waits for the first of its key.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// PostgreSQL's `lock_not_available`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// An answer to a request that creates. Only [`Making::commit`] makes it one that can be sent.
pub trait Creation {
    /// As it goes over the wire.
    type Shape: ApiResponse + IntoResponse;

    fn into_shape(self) -> Self::Shape;
}

/// The request's key, if it has one. Taken by every handler that creates.
#[must_use = "what is created begins with `begin`"]
pub struct Once(Option<Named>);

struct Named {
    /// Names principal, method, path and key.
    id: String,
    fingerprint: Fingerprint,
    in_flight: InFlight,
}

impl<'a> FromRequest<'a> for Once {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let Some(key) = request.headers().get(KEY) else { return Ok(Self(None)) };
        let missing = |what| ApiError::internal(format_args!("a request with {KEY} came without its {what}"));
        let principal = request.data::<Principal>().ok_or_else(|| missing("principal"))?;
        let fingerprint = request.data::<Fingerprint>().ok_or_else(|| missing("fingerprint"))?;
        let in_flight = request.data::<InFlight>().ok_or_else(|| missing("register"))?;
        let actor = principal.actor();
        let scope = [
            actor.actor_type.as_str().as_bytes(),
            actor.id.as_deref().unwrap_or_default().as_bytes(),
            request.method().as_str().as_bytes(),
            request.original_uri().path().as_bytes(),
            key.as_bytes(),
        ];
        Ok(Self(Some(Named { id: name(&scope), fingerprint: fingerprint.clone(), in_flight: in_flight.clone() })))
    }
}

/// One name for several parts, each of any length and content.
fn name(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    hex::encode(context.finish())
}

/// What a request with or without a key begins as.
pub enum Begun {
    /// It is to be made now.
    New(Making),
    /// It was made before.
    Replay(Replay),
}

impl Once {
    /// Begins the write, unless the request was answered before.
    ///
    /// # Errors
    /// 422 `idempotency_key_reused` when the key named another request; 409 `idempotency_in_progress` when the first one is
    /// still open after [`PATIENCE`].
    pub async fn begin(self, database: &Database) -> Result<Begun, ApiError> {
        let Some(Named { id, fingerprint, in_flight }) = self.0 else {
            return Ok(Begun::New(Making { write: database.begin().await?, record: None }));
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let turn = loop {
            match in_flight.take(&id) {
                Ok(turn) => break turn,
                Err(other) => tokio::time::timeout_at(deadline, other.ended()).await.map_err(|_| in_progress())?,
            }
            if let Some(record) = idempotency::live(database.reader(), &id).await? {
                return replay(record, &fingerprint);
            }
        };
        let write = database.begin().await?;
        if idempotency::claim(&*write, &id, fingerprint.as_str(), LIFE, PATIENCE).await.map_err(held)? {
            return Ok(Begun::New(Making { write, record: Some(Record { id, _turn: turn }) }));
        }
        let record = idempotency::by_id(&*write, &id).await?;
        write.rollback().await?;
        replay(record.ok_or_else(in_progress)?, &fingerprint)
    }
}

fn replay(record: idempotency::Model, fingerprint: &Fingerprint) -> Result<Begun, ApiError> {
    if record.fingerprint != fingerprint.as_str() {
        let detail = format!(
            "This {KEY} named a request with another body or query within the last 24 hours. Nothing was done; send a new key."
        );
        return Err(ApiError::new(Code::IdempotencyKeyReused, detail));
    }
    Stored::of_record(record).map(|stored| Begun::Replay(Replay::new(stored)))
}

fn in_progress() -> ApiError {
    let detail = format!("The first request with this {KEY} has not been answered yet. Send it again for its answer.");
    ApiError::new(Code::IdempotencyInProgress, detail).with_retry_after(1)
}

/// The only lock that the claim waits for is that of the first request.
fn held(error: DbErr) -> ApiError {
    match &error {
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) if matches!(&**cause, SqlxError::Database(cause) if cause.code().as_deref() == Some(LOCK_NOT_AVAILABLE)) => {
            in_progress()
        }
        _ => error.into(),
    }
}

/// The write of a request that creates. Dropped without [`Making::commit`], nothing was made and the key is free.
#[must_use = "it leaves no trace without `commit`"]
pub struct Making {
    write: Write,
    record: Option<Record>,
}

struct Record {
    id: String,
    _turn: Turn,
}

impl Deref for Making {
    type Target = Write;

    fn deref(&self) -> &Write {
        &self.write
    }
}

impl Making {
    /// Keeps `answer` for replays and makes it and all that was written durable.
    pub async fn commit<A: Creation>(self, answer: A) -> Result<Made<A>, ApiError> {
        let mut response = answer.into_shape().into_response();
        if let Some(record) = &self.record {
            let Stored { status, headers, body } = Stored::of_response(&mut response).await?;
            idempotency::answer(&*self.write, &record.id, status.as_u16(), headers, &body).await?;
        }
        self.write.commit().await?;
        Ok(Made::fresh(response))
    }

    /// Refuses, leaving no trace. What the refusal rests on may have been read before it was durable: it is by now.
    pub async fn refused<T>(self, refusal: ApiError) -> Result<T, ApiError> {
        self.write.rollback().await?;
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_keep_their_parts_apart() {
        assert_eq!(name(&[b"ab", b"c"]), name(&[b"ab", b"c"]));
        assert_ne!(name(&[b"ab", b"c"]), name(&[b"a", b"bc"]));
        assert_ne!(name(&[b"ab", b""]), name(&[b"", b"ab"]));
        assert_eq!(name(&[b"a"]).len(), 64);
    }
}
