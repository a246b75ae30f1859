//! The events of the audit log in a package: one run of them, in the form of the log's own export, which proves each to be in the log.

use super::{
    disk,
    files::{Room, Written},
    no_key, query,
    source::Source,
    still_ours,
};
use crate::{
    audit::{
        checkpoints,
        export::{Export, ExportError, Part},
        keys::KeyError,
        sequencer::SequenceError,
    },
    context::Context,
    job::JobError,
};
use keywright_entities::evidence_package;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Write;

pub const EVENTS: &str = "audit/events.ndjson";
/// Among what is fixed of a package.
const CHOSEN: &str = "auditEvents";

/// Which events a package holds: from number `from` to before `to`, under the checkpoint of `covered` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub from: u64,
    pub to: u64,
    pub covered: u64,
}

/// The events that were chosen and written.
#[derive(Clone, Debug)]
pub struct Events {
    pub chosen: Chosen,
    pub file: Written,
}

impl Events {
    pub fn count(&self) -> u64 {
        self.chosen.to - self.chosen.from
    }
}

/// Those that were chosen for this package.
pub fn chosen(source: &Source<'_>) -> Option<Chosen> {
    serde_json::from_value(source.frozen(CHOSEN).clone()).ok()
}

/// Chooses them, once: whoever builds the package again finds them in its row. `false` while some of the period still wait for their
/// numbers. They begin with the first of the period and end where all of it, and what ended the jobs of the period, is among them.
pub async fn choose(context: &Context, source: &Source<'_>) -> Result<bool, JobError> {
    const BELONGS: &str = "(e.at < {as_of} OR EXISTS \
         (SELECT 1 FROM job j WHERE j.id = e.job_id AND j.completed_at < {as_of}))";
    let count = async |text: String| query::count(source, &text).await;
    if chosen(source).is_some() {
        return Ok(true);
    }
    if count(format!("SELECT COUNT(*) AS n FROM audit_outbox e WHERE e.seq IS NULL AND {BELONGS}")).await? > 0 {
        return Ok(false);
    }
    let to = format!(
        "SELECT CAST(COALESCE(MAX(e.seq), -1) + 1 AS BIGINT) AS n FROM audit_outbox e WHERE e.seq IS NOT NULL AND {BELONGS}"
    );
    let from = "SELECT CAST(COALESCE(MIN(e.seq), 9223372036854775807) AS BIGINT) AS n FROM audit_outbox e \
         WHERE e.seq IS NOT NULL AND e.at >= {from}";
    let to = count(to).await?;
    let from = count(from.to_owned()).await?.min(to);
    let covered = checkpoints::covering(&context.database, &context.sealing, to).await.map_err(unsigned)?;
    let chosen = json!(Chosen { from, to, covered });
    let package = source.package;
    context
        .persist(|db, _| {
            let (package, chosen) = (package.clone(), chosen.clone());
            Box::pin(async move { keep(db, package, chosen).await })
        })
        .await?;
    Ok(true)
}

async fn keep(
    db: &sea_orm::DatabaseTransaction,
    package: evidence_package::Model,
    chosen: Value,
) -> Result<(), sea_orm::DbErr> {
    let mut frozen = package.frozen.clone();
    if let Some(fields) = frozen.as_object_mut() {
        fields.insert(CHOSEN.to_owned(), chosen);
    }
    let mut package = package.into_active_model();
    package.frozen = Set(frozen);
    package.update(db).await.map(|_| ())
}

/// Writes them, a page at a time.
pub async fn write(context: &Context, source: &Source<'_>, room: &mut Room) -> Result<Option<Events>, JobError> {
    let Some(chosen) = chosen(source) else { return Ok(None) };
    context.evidence.step(EVENTS);
    let Chosen { from, to, covered } = chosen;
    let part = Part::chosen(&context.database, (from, to, covered), source.package.created_at).await;
    let begun = Export::begin(&context.database, &context.sealing, part.map_err(unwritten)?).await;
    let (mut export, first) = begun.map_err(unwritten)?;
    let mut file = room.begin(EVENTS).map_err(disk)?;
    let mut next = Some(first);
    while let Some(bytes) = next {
        still_ours(context).await?;
        file.write_all(&bytes).map_err(disk)?;
        next = export.more().await.map_err(unwritten)?;
    }
    let file = room.end(file, Some(to - from)).map_err(disk)?;
    Ok(Some(Events { chosen, file }))
}

fn unwritten(error: ExportError) -> JobError {
    match error {
        ExportError::Database(error) => error.into(),
        ExportError::Key(error) => no_key(error),
        error => JobError::fail(
            "audit_log_damaged",
            format!(
                "the audit log cannot be told whole ({error}); ask for a package without it, and for GET /api/audit/verify"
            ),
        ),
    }
}

fn unsigned(error: SequenceError) -> JobError {
    match error {
        SequenceError::Database(error) | SequenceError::Key(KeyError::Database(error)) => error.into(),
        error => {
            JobError::retry("audit_log_unsigned", format!("no checkpoint of the audit log could be made: {error}"))
        }
    }
}
