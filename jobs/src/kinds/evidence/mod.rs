//! Evidence packages: built by a job from what was fixed when they were asked for, and visible only as a whole.
//!
//! The same row of `evidence_package`, the same program and the same key make the same bytes, whoever builds them and how often.

mod archive;
mod build;
mod events;
mod files;
mod gaps;
mod populations;
mod query;
mod readme;
mod report;
pub mod request;
mod rotations;
mod source;

use crate::{
    audit::keys,
    context::Context,
    evidence::LayoutError,
    job::{Done, Job, JobError},
    provider::{Gate, Pass},
};
use archive::{ARCHIVE, Archive, content_of};
use build::Told;
use files::{Room, Written};
use keywright_entities::{clock, evidence_package, job, types::WaitingFor};
use keywright_stores::objects::{Content, StoreError};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::{Set, Unchanged},
    ConnectionTrait,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use source::Source;
use std::{io, path::Path, sync::Arc, time::Duration};
use uuid::Uuid;

/// The name of the form of packages.
pub const FORMAT: &str = "keywright.evidence/1";
/// How long a build waits for writes that began before its package was asked for, and for the numbers of their events.
const UNTIL_SETTLED: Duration = Duration::from_secs(1);
const REPORT: &str = "report.pdf";
const SUMS: &str = "SHA256SUMS";
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";
const README: &str = "README.txt";

/// Builds the package of the same id.
#[derive(Debug, Serialize, Deserialize)]
pub struct BuildPackage {
    /// What the package is about, for those who may see the job.
    pub subscriptions: Vec<Uuid>,
}

impl Job for BuildPackage {
    const KIND: &'static str = "evidence.build";
    const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        let db = context.database.reader();
        let package = evidence_package::by_id(db, context.job.id).await?;
        let package = package.ok_or_else(|| JobError::fail("package_gone", "the package's row was deleted"))?;
        if package.built_at.is_some() {
            return Ok(Done::Succeeded);
        }
        let objects = context.evidence.store.objects().await.map_err(stored)?;
        if objects.identity() != package.store {
            return Err(JobError::retry(
                "evidence_store_not_shared",
                "the worker's evidence store is not that of the API process that was asked; give both the same \
                 KEYWRIGHT_EVIDENCE_STORE, and the same KEYWRIGHT_DATA_DIR if it is local",
            ));
        }
        let source = Source::new(db, &package).map_err(unreadable)?;
        let settled = query::settled(&source).await?;
        if !settled || tells_events(&source) && !events::choose(context, &source).await? {
            return Err(JobError::Snooze { waiting_for: WaitingFor::Snooze, after: UNTIL_SETTLED });
        }
        let package = evidence_package::by_id(db, context.job.id).await?.unwrap_or(package.clone());
        let source = Source::new(db, &package).map_err(unreadable)?;
        sweep(context).await?;
        let mut room = Room::make(&context.evidence.room, context.job.id, context.job.epoch).map_err(disk)?;
        let built = Built::make(context, &source, &mut room).await?;
        context.report("store", 0, None);
        let keys = built.keys(package.id);
        still_ours(context).await?;
        context.evidence.step("store package");
        objects.create(&keys.0, &room.at(ARCHIVE), &built.archive).await.map_err(stored)?;
        if let (Some(report), Some(key)) = (&built.report, &keys.1) {
            still_ours(context).await?;
            context.evidence.step("store report");
            objects.create(key, &room.at(REPORT), report).await.map_err(stored)?;
        }
        context.evidence.step("publish");
        built.publish(context, keys).await?;
        Ok(Done::Succeeded)
    }
}

/// The log tells of everything: only whoever may see everything is told of it.
fn tells_events(source: &Source<'_>) -> bool {
    source.request.include.audit && !source.package.restricted
}

/// A package that is whole but not yet visible.
struct Built {
    archive: Content,
    report: Option<Content>,
    signing_key: String,
    contents: Value,
}

impl Built {
    async fn make(context: &Context, source: &Source<'_>, room: &mut Room) -> Result<Self, JobError> {
        context.report("populations", 0, None);
        let signer = keys::signer(&context.database, &context.sealing).await.map_err(no_key)?;
        let verifier = signer.verifier().to_string();
        let told = build::write(context, source, room).await?;
        context.evidence.step("scope");
        room.write_json("scope.json", &build::scope(source, &told)).map_err(disk)?;
        if told.includes("policy") {
            room.write_json("policy.json", source.frozen("settings")).map_err(disk)?;
        }
        context.report("report", 0, None);
        let report = report(context, source, &told, &verifier, room).await?;
        still_ours(context).await?;
        context.evidence.step("manifest");
        let sums = readme::sums(&room.files());
        room.write(README, readme::readme(source, &verifier).as_bytes()).map_err(disk)?;
        let sums =
            sums + &readme::sums(&room.files().into_iter().filter(|file| file.path == README).collect::<Vec<_>>());
        room.write(SUMS, sums.as_bytes()).map_err(disk)?;
        let manifest = manifest(source, &told, &verifier, &room.files());
        let manifest = room.write_json(MANIFEST, &manifest).map_err(disk)?;
        let text = std::fs::read(room.at(&manifest.path)).map_err(disk)?;
        room.write(SIGNATURE, &signer.sign_detached(&text)).map_err(disk)?;
        context.report("archive", 0, None);
        let mut archive = Archive::begin(room).map_err(disk)?;
        for file in room.files() {
            still_ours(context).await?;
            context.evidence.step(&file.path);
            archive.add(room, &file).map_err(disk)?;
        }
        let (_, archive) = archive.end().map_err(disk)?;
        let populations: Vec<Value> =
            told.populations.iter().map(|one| json!({"name": one.name, "rows": one.rows})).collect();
        let sections: Vec<Value> =
            told.sections.iter().map(|(name, standing)| json!({"name": name, "standing": standing})).collect();
        let contents = json!({"populations": populations, "sections": sections, "gaps": told.gaps.by_gap()});
        Ok(Self { archive, report, signing_key: verifier, contents })
    }

    /// What is in an object is part of its name: what another version of the program makes of the same row is another object.
    fn keys(&self, id: Uuid) -> (String, Option<String>) {
        let key = |content: &Content, kind: &str| format!("packages/{id}/{}.{kind}", hex::encode(content.sha256));
        (key(&self.archive, "zip"), self.report.as_ref().map(|report| key(report, "pdf")))
    }

    async fn publish(
        &self,
        context: &Context,
        (object_key, report_key): (String, Option<String>),
    ) -> Result<(), JobError> {
        let size = |content: &Content| i64::try_from(content.size).unwrap_or(i64::MAX);
        let whole = evidence_package::ActiveModel {
            object_key: Set(Some(object_key)),
            size: Set(Some(size(&self.archive))),
            sha256: Set(Some(hex::encode(self.archive.sha256))),
            report_key: Set(report_key),
            report_size: Set(self.report.as_ref().map(size)),
            report_sha256: Set(self.report.as_ref().map(|report| hex::encode(report.sha256))),
            signing_key: Set(Some(self.signing_key.clone())),
            contents: Set(Some(self.contents.clone())),
            ..Default::default()
        };
        context
            .persist(|db, job| {
                let whole = whole.clone();
                Box::pin(async move { publish(db, &job, whole).await })
            })
            .await
    }
}

async fn publish(
    db: &impl ConnectionTrait,
    job: &job::Model,
    whole: evidence_package::ActiveModel,
) -> Result<(), sea_orm::DbErr> {
    let Some(row) = evidence_package::by_id(db, job.id).await? else { return Ok(()) };
    // the commit whose answer was lost had happened
    if row.built_at.is_some() {
        return Ok(());
    }
    let now = clock::micros(clock::now(db).await?);
    let whole = evidence_package::ActiveModel { id: Unchanged(row.id), built_at: Set(Some(now)), ..whole };
    whole.update(db).await.map(|_| ())
}

/// Lays the report out on this thread, which is the job's own.
async fn report(
    context: &Context,
    source: &Source<'_>,
    told: &Told,
    verifier: &str,
    room: &mut Room,
) -> Result<Option<Content>, JobError> {
    let Some(layout) = &context.evidence.layout else { return Ok(None) };
    still_ours(context).await?;
    context.evidence.step("report");
    let mut report = report::report(source, told, env!("CARGO_PKG_VERSION"), verifier);
    for population in report::attached(told) {
        let bytes = std::fs::read(room.at(&population.csv.path)).map_err(disk)?;
        report.attachments.push(report::attachment(population, bytes));
    }
    let bytes = layout.lay_out(&report).map_err(|LayoutError(detail)| JobError::fail("report_failed", detail))?;
    room.write(REPORT, &bytes).map_err(disk)?;
    content_of(&room.at(REPORT)).map(Some).map_err(disk)
}

fn manifest(source: &Source<'_>, told: &Told, verifier: &str, files: &[Written]) -> Value {
    let package = source.package;
    let spelled = request::spelled;
    json!({
        "format": FORMAT,
        "package": package.id,
        "organisation": source.organisation(),
        "generator": {"name": "Keywright", "version": env!("CARGO_PKG_VERSION")},
        "exportedAt": spelled(package.created_at),
        "asOf": spelled(package.as_of),
        "period": {"from": spelled(package.period_from), "to": spelled(package.as_of)},
        "requestedBy": build::actor(source),
        "restrictedToSubscriptions": package.restricted,
        "signedBy": verifier,
        "sample": {"seed": source.seed(), "size": source.sample().size, "rank": "sha256(seed LF key), in hex"},
        "populations": build::listing(told),
        "gaps": told.gaps.json(),
        "files": files,
    })
}

/// What builds of jobs that have ended left behind, because their worker died, goes.
async fn sweep(context: &Context) -> Result<(), JobError> {
    for (id, path) in Room::jobs(&context.evidence.room) {
        let job = job::by_id(context.database.reader(), id).await?;
        if job.is_none_or(|job| job.state.is_done()) {
            remove(&path);
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::debug!(path = %path.display(), %error, "what a build left behind stays for now");
    }
}

/// Ends the attempt where it must end.
async fn still_ours(context: &Context) -> Result<(), JobError> {
    Gate::new(Arc::clone(&context.lease) as Arc<dyn Pass>).pass().await.map_err(JobError::from)
}

fn unreadable(error: serde_json::Error) -> JobError {
    JobError::fail("payload_invalid", format!("the package's request cannot be read: {error}"))
}

fn no_key(error: keys::KeyError) -> JobError {
    match error {
        keys::KeyError::Database(error) => error.into(),
        error => JobError::retry("signing_key_unavailable", error),
    }
}

fn disk(error: io::Error) -> JobError {
    JobError::retry("disk", format!("a file of the package could not be written or read: {error}"))
}

fn stored(error: StoreError) -> JobError {
    let code = match &error {
        StoreError::Denied { .. } => "evidence_store_denied",
        StoreError::NoCredentials { .. } => "evidence_store_no_credentials",
        StoreError::NoPlace { .. } | StoreError::Missing { .. } => "evidence_store_missing",
        StoreError::Conflict { .. } => "evidence_store_conflict",
        StoreError::WrongChecksum { .. } => "evidence_store_checksum",
        StoreError::Unavailable { .. } | StoreError::Reply { .. } | StoreError::File(_) => "evidence_store_unavailable",
    };
    if error.is_transient() { JobError::retry(code, error) } else { JobError::fail(code, error) }
}
