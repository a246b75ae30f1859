//! The tamper-evident audit log: reading, exporting, verifying, proofs.

use super::{
    Tag,
    jobs::{JobView, Waiting, control::requester},
};
use crate::{
    answer::Accepted,
    auth::{Caller, Principal, perm},
    context,
    error::{ApiError, Code},
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::ActorType,
};
use keywright_entities::{audit_checkpoint, audit_log, audit_outbox, job, scope::Scope, types};
use keywright_jobs::{
    audit::{
        Event, EventType,
        check::{Verdict, check},
        export::Part,
        keys,
        log::{self, LogError},
    },
    job::Job,
    kinds::audit::{self as verification, VerifyLog},
    queue::wait::Waiters,
    setup::{database::Database, sealing::Sealing},
};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

mod export;
mod view;

use export::{ExportFormat, Exported, refused};
use view::{AuditEventView, AuditOutcome, CheckpointView, KeysView, ProofView, VerificationView, spelled, tlog_proof};

/// A request checks at most so many events.
const VERIFY_AT_ONCE: i64 = 100_000;

/// The audit log, and the keys that sign it.
pub struct AuditApi {
    pub database: Database,
    pub sealing: Sealing,
    pub waiters: Waiters,
}

static EVENTS: Sorting<audit_outbox::Model> = Sorting {
    keys: &[SortKey {
        name: "seq",
        column: || audit_outbox::Column::Seq.into_expr(),
        nullable: false,
        read: |row| row.seq.unwrap_or_default().into(),
    }],
    default: "-seq",
    unique: SortKey {
        name: "id",
        column: || audit_outbox::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Audit")]
impl AuditApi {
    /// List audit events, newest first
    ///
    /// An event appears when it has its number, a moment after it happened. That the log was read is an event itself.
    #[oai(path = "/api/audit", method = "get", operation_id = "listAuditEvents")]
    #[allow(clippy::too_many_arguments, reason = "each is a filter of the list")]
    async fn list(
        &self,
        caller: Caller<perm::AuditRead>,
        list: ListParams,
        /// Only these types, e.g. `user.created`.
        #[oai(name = "type")]
        event_type: Query<Option<Vec<String>>>,
        /// Only what this kind of actor did.
        #[oai(name = "actorType")]
        actor_type: Query<Option<ActorType>>,
        /// Only what the actor with this id did.
        actor: Query<Option<String>>,
        /// Only what was done to this kind of thing, e.g. `user`.
        #[oai(name = "subjectType")]
        subject_type: Query<Option<String>>,
        /// Only what was done to the thing with this id.
        subject: Query<Option<String>>,
        /// Only with this outcome.
        outcome: Query<Option<AuditOutcome>>,
        /// Only of this job.
        job: Query<Option<Uuid>>,
        /// Only of the request with this `X-Request-Id`.
        #[oai(name = "requestId")]
        request_id: Query<Option<String>>,
        /// Only what happened at this instant or later.
        #[oai(name = "createdAfter")]
        created_after: Query<Option<Timestamp>>,
        /// Only what happened before this instant.
        #[oai(name = "createdBefore")]
        created_before: Query<Option<Timestamp>>,
        /// `seq` (default `-seq`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<AuditEventView>>, ApiError> {
        let _ = sort;
        whole(&caller)?;
        use audit_outbox::Column;
        let mut select = audit_outbox::Entity::find().filter(Column::Seq.is_not_null());
        if let Some(words) = event_type.0 {
            select = select.filter(Column::EventType.is_in(words));
        }
        let actor_type = actor_type.0.map(types::ActorType::from);
        let equal = [
            actor_type.map(|word| Column::ActorType.eq(word)),
            actor.0.map(|id| Column::ActorId.eq(id)),
            subject_type.0.map(|word| Column::SubjectType.eq(word)),
            subject.0.map(|id| Column::SubjectId.eq(id)),
            outcome.0.map(|word| Column::Outcome.eq(word.stored())),
            job.0.map(|id| Column::JobId.eq(id)),
            request_id.0.map(|id| Column::RequestId.eq(id)),
            created_after.0.map(|at| Column::At.gte(at.0)),
            created_before.0.map(|at| Column::At.lt(at.0)),
        ];
        for condition in equal.into_iter().flatten() {
            select = select.filter(condition);
        }
        let mut slice = list.fetch(select, &EVENTS, self.database.reader()).await?;
        let rows = log::with_names(self.database.reader(), std::mem::take(&mut slice.rows)).await?;
        self.told(EventType::AuditRead, &caller, "list").await?;
        Ok(Json(slice.holding(rows).into_page(AuditEventView::from)))
    }

    /// Export the audit log
    ///
    /// `ndjson` is what `keywright-verify audit` checks, offline: events as they were hashed, the newest checkpoint, keys, and the
    /// hashes of what is not in the file. `csv` is for people. What the newest checkpoint does not cover yet is not exported.
    #[oai(path = "/api/audit/export", method = "get", operation_id = "exportAudit")]
    async fn export(
        &self,
        caller: Caller<perm::AuditRead>,
        /// Default `ndjson`.
        format: Query<Option<ExportFormat>>,
        /// The number of the first event; default 0.
        #[oai(validator(minimum(value = "0")))]
        from: Query<Option<i64>>,
        /// The number after that of the last one; default: all that is signed.
        #[oai(validator(minimum(value = "0")))]
        to: Query<Option<i64>>,
    ) -> Result<Exported, ApiError> {
        whole(&caller)?;
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let format = format.0.unwrap_or(ExportFormat::Ndjson);
        let part = Part::of(&self.database, number(from.0.unwrap_or(0)), to.0.map(number)).await.map_err(refused)?;
        let event = self
            .event(EventType::AuditExported, &caller)
            .detail("format", format.as_str())
            .detail("from", part.from)
            .detail("to", part.to);
        self.write(event).await?;
        Exported::begin(&self.database, &self.sealing, part, format).await.map_err(refused)
    }

    /// Verify the audit log
    ///
    /// Checks every event against its hash, the tree against every checkpoint and its signature, and the jobs that ended against the
    /// events that must tell of it. Up to 100,000 events; POST checks more.
    #[oai(path = "/api/audit/verify", method = "get", operation_id = "verifyAudit")]
    async fn verify(&self, caller: Caller<perm::AuditRead>) -> Result<Json<VerificationView>, ApiError> {
        whole(&caller)?;
        let size = audit_log::get(self.database.reader()).await?.size;
        if size > VERIFY_AT_ONCE {
            return Err(ApiError::conflict(format!(
                "The log has {size} events, and a request verifies at most {VERIFY_AT_ONCE}. Have a job verify it: POST /api/audit/verify."
            )));
        }
        let checked = check(self.database.reader(), None, |_, _| ()).await.map_err(ApiError::internal)?;
        let verdict = Verdict::from(checked);
        self.write(verdict.event(caller.actor()).request(context::request_id())).await?;
        verdict.alarm();
        Ok(Json(verdict.into()))
    }

    /// Have the audit log verified, whatever its size
    ///
    /// A job; what it finds is told by `/api/audit/verifications/{id}` with its id. Asked again while it is under way, answers with it.
    #[oai(path = "/api/audit/verify", method = "post", operation_id = "startAuditVerification")]
    async fn start_verification(
        &self,
        caller: Caller<perm::AuditRead>,
        once: Once,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        whole(&caller)?;
        let (waiters, database) = (&self.waiters, &self.database);
        let waiting = Waiting { waiters, database, visible: caller.visible(), prefer: prefer.0.as_deref() };
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        let begun = verification::verify(&write, requester(&caller)).await?;
        waiting.accepted(write, begun).await
    }

    /// Get what a verification of the audit log found
    #[oai(path = "/api/audit/verifications/:id", method = "get", operation_id = "getAuditVerification")]
    async fn verification(
        &self,
        caller: Caller<perm::AuditRead>,
        /// That of its job.
        id: Path<Uuid>,
    ) -> Result<Json<VerificationView>, ApiError> {
        whole(&caller)?;
        let db = self.database.reader();
        let job = job::by_id(db, id.0).await?.filter(|job| job.kind == VerifyLog::KIND);
        let job = job.ok_or_else(|| ApiError::not_found("verification"))?;
        match verification::verdict(db, &job).await? {
            Some(verdict) => Ok(Json(verdict.into())),
            None => Err(ApiError::conflict(
                "The verification has not come to an end, or its job failed: GET /api/jobs/{id} tells.",
            )
            .with_job_id(job.id)),
        }
    }

    /// Get the newest checkpoint
    ///
    /// Keep it where the operator of this instance cannot reach it: a later log that does not go on from it was rewritten.
    #[oai(path = "/api/audit/checkpoint", method = "get", operation_id = "getAuditCheckpoint")]
    async fn checkpoint(&self, caller: Caller<perm::AuditRead>) -> Result<Json<CheckpointView>, ApiError> {
        whole(&caller)?;
        let newest = audit_checkpoint::newest(self.database.reader()).await?;
        let newest = newest.ok_or_else(|| ApiError::not_found("checkpoint"))?;
        self.told(EventType::AuditRead, &caller, "checkpoint").await?;
        Ok(Json(CheckpointView::of(newest)?))
    }

    /// Prove an event, or that the log only grew
    ///
    /// Either `event`: that it is in the log of the newest checkpoint. Or `from` and `to`, sizes of the log: that it began with
    /// `from` events when it had `to`.
    #[oai(path = "/api/audit/proof", method = "get", operation_id = "getAuditProof")]
    async fn proof(
        &self,
        caller: Caller<perm::AuditRead>,
        /// An event's number or its id.
        event: Query<Option<String>>,
        /// The size of the older log.
        #[oai(validator(minimum(value = "1")))]
        from: Query<Option<i64>>,
        /// The size of the newer log.
        #[oai(validator(minimum(value = "1")))]
        to: Query<Option<i64>>,
    ) -> Result<Json<ProofView>, ApiError> {
        whole(&caller)?;
        let proof = match (event.0, from.0, to.0) {
            (Some(event), None, None) => self.inclusion(&event).await?,
            (None, Some(from), Some(to)) => self.consistency(from, to).await?,
            _ => return Err(ApiError::invalid("/query", "choice", "Give either `event`, or `from` and `to`.")),
        };
        self.told(EventType::AuditRead, &caller, "proof").await?;
        Ok(Json(proof))
    }

    /// List the public keys that sign evidence
    ///
    /// Open to everybody. Whoever checks takes the keys from somebody whom they trust, not together with what they check.
    #[oai(path = "/api/evidence/keys", method = "get", operation_id = "listEvidenceKeys")]
    async fn keys(&self) -> Result<Json<KeysView>, ApiError> {
        let history = keys::history(self.database.reader()).await.map_err(ApiError::internal)?;
        let keys = history.keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Json(KeysView { keys }))
    }
}

impl AuditApi {
    async fn inclusion(&self, event: &str) -> Result<ProofView, ApiError> {
        use audit_outbox::Column;
        let db = self.database.reader();
        let which = match (event.parse::<i64>(), event.parse::<Uuid>()) {
            (Ok(seq), _) => Column::Seq.eq(seq),
            (_, Ok(id)) => Column::Id.eq(id),
            _ => return Err(ApiError::invalid("/query/event", "format", "An event has a number and a UUID.")),
        };
        let row = audit_outbox::Entity::find().filter(which).one(db).await?;
        let row = row.filter(|row| row.seq.is_some()).ok_or_else(|| ApiError::not_found("event"))?;
        let event = log::with_names(db, vec![row]).await?.pop().ok_or_else(|| ApiError::not_found("event"))?;
        let newest = audit_checkpoint::newest(db).await?;
        let covered = newest.filter(|newest| newest.size > log::number(event.seq()));
        let Some(checkpoint) = covered else {
            return Err(ApiError::conflict(
                "No checkpoint covers this event yet; one does within a minute. Try again then.",
            ));
        };
        let size = u64::try_from(checkpoint.size).unwrap_or_default();
        let proof = log::inclusion(db, event.seq(), size).await.map_err(unreadable)?;
        let (leaf, hashes) = proof.ok_or_else(|| ApiError::not_found("event"))?;
        let bytes = event.hashed(|event| event.leaf_bytes()).map_err(ApiError::internal)?;
        Ok(ProofView {
            event: String::from_utf8(bytes).ok(),
            index: event.row.seq,
            leaf: Some(leaf.to_string()),
            from: None,
            to: checkpoint.size,
            hashes: spelled(&hashes),
            tlog_proof: Some(tlog_proof(event.seq(), &hashes, &checkpoint.note)),
            checkpoint: Some(checkpoint.note),
        })
    }

    async fn consistency(&self, from: i64, to: i64) -> Result<ProofView, ApiError> {
        let db = self.database.reader();
        let size = audit_log::get(db).await?.size;
        if to > size || from > to {
            let what = format!("The log has {size} events: `to` is at most that, and not before `from`.");
            return Err(ApiError::invalid("/query/to", "range", what));
        }
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let hashes = log::consistency(db, number(from), number(to)).await.map_err(unreadable)?.unwrap_or_default();
        let checkpoint = audit_checkpoint::Entity::find_by_id(to).one(db).await?;
        Ok(ProofView {
            event: None,
            index: None,
            leaf: None,
            from: Some(from),
            to,
            hashes: spelled(&hashes),
            checkpoint: checkpoint.map(|checkpoint| checkpoint.note),
            tlog_proof: None,
        })
    }

    fn event(&self, event_type: EventType, caller: &Principal) -> Event {
        Event::new(event_type, caller.actor(), "audit_log").request(context::request_id())
    }

    async fn told(&self, event_type: EventType, caller: &Principal, what: &str) -> Result<(), ApiError> {
        self.write(self.event(event_type, caller).detail("what", what)).await
    }

    /// Before anything is answered: what was read unseen would be a hole in the log.
    async fn write(&self, event: Event) -> Result<(), ApiError> {
        let write = self.database.begin().await?;
        event.write(&*write).await?;
        Ok(write.commit().await?)
    }
}

/// The log tells of everything that is looked at.
fn whole(caller: &Principal) -> Result<(), ApiError> {
    match caller.visible() {
        Scope::All => Ok(()),
        _ => Err(ApiError::new(
            Code::PermissionDenied,
            "The audit log tells of all subscriptions, and you are restricted to some. Ask somebody who is not.",
        )),
    }
}

fn unreadable(error: LogError) -> ApiError {
    match error {
        LogError::Database(error) => error.into(),
        other => ApiError::internal(other),
    }
}
