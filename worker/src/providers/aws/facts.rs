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

/// The ARN of a key that the thing at `of` names by its id, its alias or its ARN.
pub(super) fn kms_arn(of: &str, key: &str) -> String {
    let mut parts = of.splitn(6, ':');
    let (arn, partition, _, region, account) = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    match (arn, partition, region, account) {
        (Some("arn"), Some(partition), Some(region), Some(account)) if !key.starts_with("arn:") => {
            let kind = if key.starts_with("alias/") || key.starts_with("key/") { "" } else { "key/" };
            format!("arn:{partition}:kms:{region}:{account}:{kind}{key}")
        }
        _ => key.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_in_full() {
        let of = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a";
        let arn = "arn:aws:kms:eu-west-1:210987654321:key/k";
        assert_eq!(kms_arn(of, arn), arn);
        assert_eq!(kms_arn(of, "k"), "arn:aws-cn:kms:cn-north-1:123456789012:key/k");
        assert_eq!(kms_arn(of, "alias/a"), "arn:aws-cn:kms:cn-north-1:123456789012:alias/a");
        assert_eq!(kms_arn("name", "k"), "k");
    }
}
