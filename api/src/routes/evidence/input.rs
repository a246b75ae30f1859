//! What clients may ask of a package.

use crate::{error::ApiError, routes::discovery::Conflict, timestamp::Timestamp};
use keywright_jobs::{
    domain::evidence::{DEFAULT_SAMPLE, Include, Request, Sample},
    kinds::discovery::request::OnConflict,
};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

/// What to put into a package. All of it may be left out.
#[derive(Debug, Default, Object)]
#[oai(rename = "BuildEvidence", rename_all = "camelCase", example)]
pub struct PackageInput {
    /// Default: the last 90 days.
    pub period: Option<PeriodInput>,
    /// Default: all that the caller may see.
    #[oai(validator(min_items = 1, max_items = 1000))]
    pub subscriptions: Option<Vec<Uuid>>,
    /// Compliance frameworks by name. Those that this version does not know are named in the package as such.
    #[oai(validator(max_items = 20, min_length = 1, max_length = 100))]
    pub frameworks: Option<Vec<String>>,
    pub include: Option<IncludeInput>,
    pub sample: Option<SampleInput>,
    /// What to do when the same package is being built. Default `join`.
    pub on_conflict: Option<Conflict>,
}

/// From one instant up to another, at most three years.
#[derive(Debug, Default, Object)]
#[oai(rename = "EvidencePeriod", rename_all = "camelCase")]
pub struct PeriodInput {
    /// Default: 90 days before its end.
    pub from: Option<Timestamp>,
    /// What the package tells is what held immediately before. Not in the future. Default: now.
    pub to: Option<Timestamp>,
}

/// Sections; each is in unless it is left out.
#[derive(Debug, Default, Object)]
#[oai(rename = "EvidenceSections", rename_all = "camelCase")]
pub struct IncludeInput {
    pub policy: Option<bool>,
    pub score: Option<bool>,
    pub violations: Option<bool>,
    pub cis: Option<bool>,
    pub rotation: Option<bool>,
    pub sync: Option<bool>,
    pub inventory: Option<bool>,
    pub audit: Option<bool>,
    pub exceptions: Option<bool>,
    pub coverage: Option<bool>,
}

/// How samples are drawn.
#[derive(Debug, Default, Object)]
#[oai(rename = "EvidenceSample", rename_all = "camelCase")]
pub struct SampleInput {
    /// Whoever has it can draw the sample again. Default: the package's id.
    #[oai(validator(min_length = 1, max_length = 200))]
    pub seed: Option<String>,
    /// Rows of each population. Default 25.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    pub size: Option<u32>,
}

impl Example for PackageInput {
    fn example() -> Self {
        let sample = SampleInput { seed: Some("2026-q4".to_owned()), size: Some(25) };
        Self { sample: Some(sample), ..Self::default() }
    }
}

impl PackageInput {
    /// What is to be built, and what to do when it is being built.
    ///
    /// # Errors
    /// 400 for a seed that cannot be told in one line.
    pub fn request(self) -> Result<(Request, OnConflict), ApiError> {
        let sample = self.sample.unwrap_or_default();
        if sample.seed.as_deref().is_some_and(|seed| seed.contains(char::is_control)) {
            return Err(ApiError::invalid("/sample/seed", "format", "A seed has no control characters."));
        }
        let period = self.period.unwrap_or_default();
        let request = Request {
            from: period.from.map(|at| at.0),
            to: period.to.map(|at| at.0),
            subscriptions: self.subscriptions,
            frameworks: self.frameworks.unwrap_or_default(),
            include: self.include.unwrap_or_default().include(),
            sample: Sample { seed: sample.seed, size: sample.size.unwrap_or(DEFAULT_SAMPLE) },
        };
        Ok((request, self.on_conflict.unwrap_or_default().into()))
    }
}

impl IncludeInput {
    fn include(&self) -> Include {
        let wanted = |flag: Option<bool>| flag.unwrap_or(true);
        Include {
            policy: wanted(self.policy),
            score: wanted(self.score),
            violations: wanted(self.violations),
            cis: wanted(self.cis),
            rotation: wanted(self.rotation),
            sync: wanted(self.sync),
            inventory: wanted(self.inventory),
            audit: wanted(self.audit),
            exceptions: wanted(self.exceptions),
            coverage: wanted(self.coverage),
        }
    }
}

/// The same in the older spelling, in which policy, score and violations are always in.
#[derive(Debug, Default)]
pub struct Flags {
    pub cis: Option<bool>,
    pub rotation: Option<bool>,
    pub sync: Option<bool>,
    pub inventory: Option<bool>,
    pub audit: Option<bool>,
    pub exceptions: Option<bool>,
    pub coverage: Option<bool>,
}

impl Flags {
    pub fn request(&self) -> Request {
        let wanted = |flag: Option<bool>| flag.unwrap_or(true);
        let include = Include {
            cis: wanted(self.cis),
            rotation: wanted(self.rotation),
            sync: wanted(self.sync),
            inventory: wanted(self.inventory),
            audit: wanted(self.audit),
            exceptions: wanted(self.exceptions),
            coverage: wanted(self.coverage),
            ..Include::ALL
        };
        let sample = Sample { seed: None, size: DEFAULT_SAMPLE };
        Request { from: None, to: None, subscriptions: None, frameworks: Vec::new(), include, sample }
    }
}
