//! What clients see of the settings: all that is in force, set or not.

use crate::{error::ApiError, timestamp::Timestamp};
use keywright_entities::settings as row;
use keywright_jobs::settings;
use poem_openapi::{Enum, Object};

/// What is in force.
#[derive(Debug, Object)]
#[oai(rename = "Settings", rename_all = "camelCase")]
pub struct SettingsView {
    pub thresholds: ThresholdsView,
    pub retention: RetentionView,
    pub limits: LimitsView,
    pub tags: TagsView,
    /// Actions that somebody else must approve before they are done.
    pub four_eyes: Vec<FourEyes>,
    /// `null`: nothing was ever set.
    pub updated_at: Option<Timestamp>,
}

/// Days before its end at which an asset's status changes.
#[derive(Debug, Object)]
#[oai(rename = "Thresholds", rename_all = "camelCase")]
pub struct ThresholdsView {
    /// From so many days before its end an asset is `warning`.
    pub warning_days: i64,
    /// From so many days before its end an asset is `critical`.
    pub critical_days: i64,
}

#[derive(Debug, Object)]
#[oai(rename = "Retention", rename_all = "camelCase")]
pub struct RetentionView {
    /// Days for which ended jobs are kept, 0 = for ever. A worker's `KEYWRIGHT_RETENTION_JOBS_DAYS` goes before it. `null`: the
    /// program's own, 30.
    pub jobs_days: Option<u32>,
}

#[derive(Debug, Object)]
#[oai(rename = "Limits", rename_all = "camelCase")]
pub struct LimitsView {
    /// Most schedules; what is there already goes on. `null`: any number.
    pub schedules: Option<u64>,
}

/// The tags that tell whose an asset is and where it is used: the first key that it carries counts, whatever its case.
#[derive(Debug, Object)]
#[oai(rename = "TagKeys", rename_all = "camelCase")]
pub struct TagsView {
    pub owner_keys: Vec<String>,
    pub environment_keys: Vec<String>,
}

/// What can be put under four eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum)]
pub enum FourEyes {
    /// Changing these settings.
    #[oai(rename = "settings.update")]
    SettingsUpdate,
}

impl FourEyes {
    fn parse(action: &str) -> Option<Self> {
        (action == settings::UPDATE).then_some(Self::SettingsUpdate)
    }
}

impl SettingsView {
    /// # Errors
    /// When something was set that this version cannot read.
    pub fn of(row: &row::Model) -> Result<Self, ApiError> {
        let settings = settings::of(row)?;
        Ok(Self {
            thresholds: ThresholdsView {
                warning_days: settings.thresholds.warning_days,
                critical_days: settings.thresholds.critical_days,
            },
            retention: RetentionView { jobs_days: settings.retention.jobs_days },
            limits: LimitsView { schedules: settings.limits.schedules },
            tags: TagsView { owner_keys: settings.tags.owner_keys, environment_keys: settings.tags.environment_keys },
            // what only a newer version knows is left alone and not shown
            four_eyes: settings.four_eyes.iter().filter_map(|action| FourEyes::parse(action)).collect(),
            updated_at: row.updated_at.map(Into::into),
        })
    }
}
