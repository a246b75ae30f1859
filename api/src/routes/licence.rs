//! What the licence is, and how much of it is used.

use super::Tag;
use crate::{
    auth::{Caller, perm},
    error::ApiError,
    timestamp::Timestamp,
};
use keywright_jobs::{
    domain::licence::{Limit, State, Tier},
    licence::Licence,
};
use poem_openapi::{Enum, Object, OpenApi, payload::Json};
use std::sync::Arc;

/// The licence.
pub struct LicenceApi {
    pub licence: Arc<Licence>,
}

/// The tiers, each with all that the one before has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename = "Tier", rename_all = "UPPERCASE")]
pub enum TierName {
    Starter,
    Pro,
    Enterprise,
}

impl From<Tier> for TierName {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Starter => Self::Starter,
            Tier::Pro => Self::Pro,
            Tier::Enterprise => Self::Enterprise,
        }
    }
}

/// `ungated`: no key is configured. `missing`: a key, and no licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "camelCase")]
pub enum LicenceState {
    Ungated,
    Missing,
    Valid,
    NotYetValid,
    Expired,
}

/// What the licence says and what follows from it.
#[derive(Debug, Object)]
#[oai(rename = "Licence", rename_all = "camelCase")]
pub struct LicenceView {
    /// The tier in force. Without a licence in force it is the lowest; where no key is configured nothing is gated.
    pub tier: TierName,
    /// A licence is in force.
    pub licensed: bool,
    pub state: LicenceState,
    /// What the licence itself says, in force or not.
    pub licensed_tier: Option<TierName>,
    /// Whose licence it is.
    pub licensee: Option<String>,
    pub issued_at: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub limits: LimitsView,
    /// What is wrong with the file; what was read from it before still counts.
    pub problem: Option<String>,
}

#[derive(Debug, Object)]
#[oai(rename = "LicenceLimits", rename_all = "camelCase")]
pub struct LimitsView {
    pub subscriptions: Usage,
    pub users: Usage,
    /// Of the present month (UTC).
    pub manual_rotations: Usage,
}

/// How much there may be and is.
#[derive(Debug, Object)]
#[oai(rename = "LicenceUsage", rename_all = "camelCase")]
pub struct Usage {
    /// `null`: any number.
    pub limit: Option<u64>,
    pub used: u64,
}

#[OpenApi(tag = "Tag::System")]
impl LicenceApi {
    /// Get the licence
    #[oai(path = "/api/system/license", method = "get", operation_id = "getLicense")]
    async fn get(&self, caller: Caller<perm::SystemRead>) -> Result<Json<LicenceView>, ApiError> {
        let _ = caller;
        let standing = self.licence.standing();
        let terms = standing.terms.as_ref();
        Ok(Json(LicenceView {
            tier: standing.tier.into(),
            licensed: standing.state == State::Valid,
            state: match standing.state {
                State::Ungated => LicenceState::Ungated,
                State::Missing => LicenceState::Missing,
                State::Valid => LicenceState::Valid,
                State::NotYetValid => LicenceState::NotYetValid,
                State::Expired => LicenceState::Expired,
            },
            licensed_tier: terms.map(|terms| terms.tier.into()),
            licensee: terms.and_then(|terms| terms.licensee.clone()),
            issued_at: terms.and_then(|terms| terms.issued_at).map(Into::into),
            not_before: terms.and_then(|terms| terms.not_before).map(Into::into),
            expires_at: terms.and_then(|terms| terms.expires_at).map(Into::into),
            limits: LimitsView {
                subscriptions: self.usage(Limit::Subscriptions).await?,
                users: self.usage(Limit::Users).await?,
                manual_rotations: self.usage(Limit::ManualRotations).await?,
            },
            problem: standing.problem,
        }))
    }
}

impl LicenceApi {
    async fn usage(&self, limit: Limit) -> Result<Usage, ApiError> {
        Ok(Usage { limit: self.licence.most(limit), used: self.licence.used(limit).await? })
    }
}
