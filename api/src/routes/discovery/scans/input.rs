//! What clients may ask of a scan, at once or by a schedule.

use crate::{
    error::{ApiError, FieldError},
    timestamp::Timestamp,
    wire::{Priority, ScanMode},
};
use keywright_entities::scope::Scope;
use keywright_jobs::kinds::discovery::request::{self, OnConflict, ScanRequest};
use poem_openapi::{Enum, Object, types::ParseFromJSON};
use sea_orm::ConnectionTrait;
use serde_json::Value;
use uuid::Uuid;

/// What to do when the same scan is under way already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Conflict {
    /// Answer with the one under way.
    #[default]
    Join,
    /// Scan once more.
    Queue,
    /// 409 with its `jobId`.
    Reject,
}

impl From<Conflict> for OnConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Join => Self::Join,
            Conflict::Queue => Self::Queue,
            Conflict::Reject => Self::Reject,
        }
    }
}

/// What to scan.
#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct StartScan {
    /// Default `full`.
    pub mode: Option<ScanMode>,
    /// Default: every enabled subscription.
    #[oai(validator(min_items = 1, max_items = 1000))]
    pub subscriptions: Option<Vec<Uuid>>,
    /// Default `join`.
    pub on_conflict: Option<Conflict>,
    /// All that is due of a higher priority begins before any of a lower one. Default `normal`.
    pub priority: Option<Priority>,
    /// Not before this instant, at most a year from now. Default: now.
    pub run_at: Option<Timestamp>,
}

impl poem_openapi::types::Example for StartScan {
    fn example() -> Self {
        Self { mode: Some(ScanMode::Full), ..Self::default() }
    }
}

impl StartScan {
    /// What is to be done.
    pub fn request(self) -> ScanRequest {
        ScanRequest {
            mode: self.mode.unwrap_or(ScanMode::Full).into(),
            subscriptions: self.subscriptions,
            on_conflict: self.on_conflict.unwrap_or_default().into(),
            priority: self.priority.unwrap_or(Priority::Normal).into(),
            run_at: self.run_at.map(|at| at.0),
        }
    }
}

/// What the request would be refused for beyond its schema, if it were made now. `base` is the pointer to the body.
///
/// # Errors
/// When the database cannot tell which subscriptions there are.
pub async fn problems(
    db: &impl ConnectionTrait,
    visible: &Scope,
    body: &Value,
    base: &str,
) -> Result<Vec<FieldError>, ApiError> {
    let Ok(body) = StartScan::parse_from_json(Some(body.clone())) else {
        return Ok(vec![FieldError::new(base, "invalid", "Does not have the documented shape.")]);
    };
    let wanted = body.subscriptions.clone().unwrap_or_default();
    let mut wrong = unknown(base, request::unknown(db, visible, &wanted).await?);
    if body.run_at.is_some() {
        let message = "The schedule says when.";
        wrong.push(FieldError::new(format!("{base}/runAt"), "unsupported", message));
    }
    Ok(wrong)
}

/// Refusals of the subscriptions at these positions.
pub fn unknown(base: &str, positions: Vec<usize>) -> Vec<FieldError> {
    let refuse = |n| FieldError::new(format!("{base}/subscriptions/{n}"), "unknown", "There is no such subscription.");
    positions.into_iter().map(refuse).collect()
}
