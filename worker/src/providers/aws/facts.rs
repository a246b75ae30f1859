//! From the SDK's words to the inventory's.

use aws_smithy_types::DateTime as SdkInstant;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde_json::{Map, Value};

/// At most microseconds, as the database keeps them; a date outside the calendar is absent.
pub(super) fn instant(instant: Option<&SdkInstant>) -> Option<DateTime<Utc>> {
    let instant = instant?;
    DateTime::from_timestamp(instant.secs(), instant.subsec_nanos()).map(|instant| instant.trunc_subsecs(6))
}

/// [`instant`] as clients read it.
pub(super) fn instant_text(text: Option<&SdkInstant>) -> Option<String> {
    instant(text).map(|instant| instant.to_rfc3339_opts(SecondsFormat::AutoSi, false))
}

/// Collects what was told; what was not told leaves no key.
#[derive(Default)]
pub(super) struct Attributes(Map<String, Value>);

impl Attributes {
    pub fn put(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}
