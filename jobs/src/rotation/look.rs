//! Whose credential an entry holds, and the plan that comes of it.

use super::RotationTarget;
use crate::{
    audit::proof::canonical,
    domain::rotation::{
        Mint, Rotation, Strategy,
        plan::{PlannedCall, calls, sentences},
    },
    provider::{
        ProviderError,
        rotation::{InUse, Parts},
    },
};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_relation};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Relations that a plan names at most.
const NAMED: u64 = 100;

/// What was found.
pub struct Facts {
    /// The store's version that readers get.
    pub version: String,
    pub in_use: InUse,
    pub strategy: Strategy,
    /// Seconds after which a call can no longer arrive, and a list shows what was made.
    pub times: (u32, u32),
    /// The ids of the identity's credentials, and whether each is active.
    pub credentials: Vec<(String, bool)>,
    pub limit: Option<usize>,
    /// A pending version is there already.
    pub pending: Option<String>,
}

/// Finds out what there is. Changes nothing.
///
/// # Errors
/// The provider's; [`ProviderError::Rejected`] `no_current_version` when there is nothing to replace.
pub async fn look(
    parts: &Parts,
    open: impl AsyncFnOnce(&str) -> Result<Parts, ProviderError>,
) -> Result<Facts, ProviderError> {
    let held = parts.store.held().await?;
    let version = held.current.ok_or_else(|| ProviderError::Rejected {
        code: "no_current_version".to_owned(),
        detail: "the entry has no version that is current, so that there is nothing to replace".to_owned(),
    })?;
    let value = parts.store.read(&version).await?;
    let in_use = parts.issuer.identify(&version, &value).await?;
    drop(value);
    let parts = open(&in_use.owner).await?;
    let abilities = parts.issuer.abilities();
    let listed = if abilities.applies { parts.issuer.list().await? } else { Vec::new() };
    Ok(Facts {
        version,
        in_use,
        strategy: strategy(&parts),
        times: (seconds(abilities.call_deadline), seconds(abilities.settle)),
        credentials: listed.into_iter().map(|one| (one.id, one.active)).collect(),
        limit: abilities.limit,
        pending: held.pending,
    })
}

fn seconds(duration: Duration) -> u32 {
    // a part of a second counts as one
    u32::try_from(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).unwrap_or(u32::MAX)
}

fn strategy(parts: &Parts) -> Strategy {
    let abilities = parts.issuer.abilities();
    Strategy {
        mint: if abilities.ours { Mint::Ours } else { Mint::Theirs },
        applies: abilities.applies,
        overlaps: abilities.overlaps,
        stages: parts.store.stages(),
        disables: abilities.disables,
        deletes: abilities.deletes,
        tells_use: abilities.tells_use,
    }
}

impl Facts {
    /// The record of a rotation that rests on this.
    pub fn record(&self, target: &RotationTarget, now: DateTime<Utc>) -> Rotation {
        let pace = target.terms.pace(self.times.0, self.times.1);
        let previous = Some(self.in_use.credential.clone());
        Rotation {
            previous_version: Some(self.version.clone()),
            ..Rotation::planned(self.strategy, pace, previous, now)
        }
    }
}

/// What people read before they agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is replaced: the store's version, the issuer's id of the credential, and whose it is.
    pub current: Current,
    /// What will happen, a sentence each.
    pub steps: Vec<String>,
    pub calls: Vec<PlannedCall>,
    /// For a moment what is stored will not work.
    pub gap: bool,
    /// The ids of the identity's credentials, where it has such.
    pub credentials: Vec<Credential>,
    /// What hangs together with the entry, as far as the inventory knows: the first 100.
    pub blast_radius: Vec<Related>,
    /// What would stop it as things stand.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    pub version: String,
    pub credential: String,
    pub identity: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    pub id: String,
    pub active: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Related {
    pub relation: String,
    pub target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub code: String,
    pub detail: String,
}

/// Makes the plan.
///
/// # Errors
/// When the database does not tell what the entry hangs together with.
pub async fn plan(
    db: &impl ConnectionTrait,
    asset: &asset::Model,
    target: &RotationTarget,
    facts: &Facts,
) -> Result<Plan, DbErr> {
    let related = asset_relation::Entity::find()
        .filter(asset_relation::Column::AssetId.eq(asset.id))
        .order_by_asc(asset_relation::Column::Id)
        .limit(NAMED)
        .all(db)
        .await?;
    let gap = facts.strategy.has_gap();
    let problem = |code: &str, detail: String| Problem { code: code.to_owned(), detail };
    let mut problems = Vec::new();
    if let Some(pending) = &facts.pending {
        let detail =
            format!("The store holds a pending version already ({pending}): perhaps a rotation is under way there.");
        problems.push(problem("strange_pending", detail));
    }
    if facts.limit.is_some_and(|limit| facts.credentials.len() >= limit) {
        let detail = "The identity has all the credentials it may have. One is made room for only if an earlier rotation made \
                      it and it is inactive.";
        problems.push(problem("quota_full", detail.to_owned()));
    }
    if gap && !target.terms.allow_gap {
        let detail =
            "There is but one slot, so that for a moment what is stored does not work; the policy does not allow that.";
        problems.push(problem("gap_not_allowed", detail.to_owned()));
    }
    let credentials = facts.credentials.iter().map(|(id, active)| Credential { id: id.clone(), active: *active });
    Ok(Plan {
        current: Current {
            version: facts.version.clone(),
            credential: facts.in_use.credential.clone(),
            identity: facts.in_use.identity.clone(),
        },
        steps: sentences(&target.terms, facts.strategy),
        calls: calls(&target.entry.kind, &target.terms.method),
        gap,
        credentials: credentials.collect(),
        blast_radius: related
            .into_iter()
            .map(|row| Related { relation: row.relation.as_str().to_owned(), target: row.target })
            .collect(),
        problems,
    })
}

/// SHA-256, in hex, over what the plan rests on (RFC 8785): what is replaced, and how.
///
/// # Errors
/// None in practice: all of it is JSON.
pub fn hash(asset: &asset::Model, target: &RotationTarget, facts: &Facts) -> Result<String, DbErr> {
    let rests_on: Value = json!({
        "asset": asset.id,
        "target": target,
        "version": facts.version,
        "credential": facts.in_use.credential,
        "identity": facts.in_use.identity,
    });
    let bytes = canonical::to_vec(&rests_on).map_err(|error| DbErr::Json(error.to_string()))?;
    Ok(hex::encode(digest::digest(&digest::SHA256, &bytes)))
}
