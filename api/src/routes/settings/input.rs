//! What clients may say about the settings.

use super::FourEyes;
use crate::{
    error::{ApiError, FieldError},
    patch::{Patch, merge},
};
use keywright_jobs::domain::settings::Settings;
use poem_openapi::{
    Object,
    types::{Example, ToJSON},
};
use serde_json::Value;

/// A merge patch: what is absent stays as it is, `null` sets back to what the program has.
#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub struct SettingsPatch {
    pub thresholds: Patch<ThresholdsPatch>,
    pub retention: Patch<RetentionPatch>,
    pub limits: Patch<LimitsPatch>,
    pub tags: Patch<TagsPatch>,
    /// Actions that somebody else must approve before they are done; replaces the list. `null`: none.
    #[oai(validator(max_items = 20, unique_items))]
    pub four_eyes: Patch<Vec<FourEyes>>,
}

#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ThresholdsPatch {
    /// At least `criticalDays`.
    #[oai(validator(minimum(value = "0"), maximum(value = "3650")))]
    pub warning_days: Patch<i64>,
    #[oai(validator(minimum(value = "0"), maximum(value = "3650")))]
    pub critical_days: Patch<i64>,
}

#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct RetentionPatch {
    /// 0 = for ever.
    #[oai(validator(minimum(value = "0"), maximum(value = "36500")))]
    pub jobs_days: Patch<u32>,
}

#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct LimitsPatch {
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000")))]
    pub schedules: Patch<u64>,
}

#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct TagsPatch {
    /// Replaces the list. The same key in another case is the same one.
    #[oai(validator(max_items = 20, max_length = 256, pattern = r"^\S([\s\S]*\S)?$"))]
    pub owner_keys: Patch<Vec<String>>,
    /// Replaces the list. The same key in another case is the same one.
    #[oai(validator(max_items = 20, max_length = 256, pattern = r"^\S([\s\S]*\S)?$"))]
    pub environment_keys: Patch<Vec<String>>,
}

impl Example for SettingsPatch {
    fn example() -> Self {
        let thresholds = ThresholdsPatch { warning_days: Patch::Set(60), critical_days: Patch::Set(14) };
        Self { thresholds: Patch::Set(thresholds), ..Self::default() }
    }
}

impl SettingsPatch {
    /// What is set after the patch.
    ///
    /// # Errors
    /// 400 that names everything that is wrong.
    pub fn apply(self, mut content: Value) -> Result<Value, ApiError> {
        merge(&mut content, self.to_json().unwrap_or_default());
        let settings = Settings::of(&content).map_err(ApiError::internal)?;
        let faults: Vec<FieldError> = settings
            .faults()
            .into_iter()
            .map(|fault| FieldError::new(fault.pointer, fault.code, fault.message))
            .collect();
        if faults.is_empty() { Ok(content) } else { Err(ApiError::validation(faults)) }
    }
}
