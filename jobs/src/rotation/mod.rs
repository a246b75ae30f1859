//! Rotations under way: what is recorded of them, and who drives them from one state to the next.
//!
//! * [`look`]: whose credential an entry holds, and the plan that comes of it; [`planned`]: the plan on its way into the database
//! * [`ledger`]: the record, its steps and their audit events, written together
//! * `calls`: each outside call, and what its answer means to the machine
//! * [`driver`]: asks [`crate::domain::rotation`] what is next and does it
//! * [`asked`]: what people ask of a rotation; [`ended`]: what the end of its job means

pub mod asked;
mod calls;
pub mod driver;
pub mod ended;
pub mod ledger;
pub mod look;
pub mod planned;

use crate::{
    domain::rotation::{Rotation, Terms},
    job::JobError,
    provider::rotation::Entry,
};
use keywright_entities::{asset, rotation};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};

/// What is rotated and how: a rotation's `target`. Nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationTarget {
    pub entry: Entry,
    pub terms: Terms,
    /// Whom the issuer must know; `None` until it is planned.
    pub owner: Option<String>,
}

impl RotationTarget {
    pub fn of(asset: &asset::Model, terms: Terms) -> Self {
        let entry = Entry {
            kind: asset.kind.clone(),
            region: asset.region.clone(),
            external_id: asset.external_id.clone(),
            name: asset.name.clone(),
        };
        Self { entry, terms, owner: None }
    }
}

/// A row with its two documents read.
#[derive(Clone, Debug)]
pub struct Opened {
    pub row: rotation::Model,
    pub record: Rotation,
    pub target: RotationTarget,
}

impl Opened {
    /// # Errors
    /// When another version wrote what this one cannot read.
    pub fn read(row: rotation::Model) -> Result<Self, Unreadable> {
        let record = serde_json::from_value(row.record.clone())?;
        let target = serde_json::from_value(row.target.clone())?;
        Ok(Self { row, record, target })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the rotation's record cannot be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

impl From<Unreadable> for JobError {
    fn from(error: Unreadable) -> Self {
        Self::fail("record_invalid", error)
    }
}

impl From<Unreadable> for DbErr {
    fn from(error: Unreadable) -> Self {
        Self::Json(error.to_string())
    }
}
