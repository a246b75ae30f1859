//! The credential report of an account: a line per user, with what there is of at most two access keys.

use super::{KEY_KIND, Key, blank, put_last_use};
use chrono::{DateTime, Utc};
use keywright_jobs::domain::inventory::AssetType;

/// The keys of everybody, or `None` when this is no such report.
///
/// A user name has no comma, an ARN no quote: the fields are plain.
pub(super) fn keys(text: &str) -> Option<Vec<Key>> {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<&str>>());
    let columns = lines.next()?;
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (user, arn) = (column("user")?, column("arn")?);
    let places = [1, 2].map(|ordinal| {
        let of = |what: &str| column(&format!("access_key_{ordinal}_{what}"));
        Some((
            ordinal,
            of("active")?,
            of("last_rotated")?,
            of("last_used_date"),
            of("last_used_region"),
            of("last_used_service"),
        ))
    });
    let [first, second] = places;
    let places = [first?, second?];
    let mut keys = Vec::new();
    for line in lines.filter(|line| line.len() > 1) {
        let field = |at: usize| line.get(at).copied().unwrap_or_default();
        for (ordinal, active, rotated, used, region, service) in places {
            let created = instant(field(rotated));
            let active = field(active) == "true";
            // a key that is not there is inactive and was never made
            if !active && created.is_none() {
                continue;
            }
            let mut asset = blank(AssetType::Credential, KEY_KIND);
            asset.created_at = created;
            asset.last_accessed_at = used.and_then(|used| instant(field(used)));
            put_last_use(&mut asset, service.map(field).unwrap_or_default(), region.map(field).unwrap_or_default());
            keys.push(Key { user: field(user).to_owned(), user_arn: field(arn).to_owned(), ordinal, active, asset });
        }
    }
    Some(keys)
}

/// `N/A`, `no_information` and `not_supported` are none.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HEAD: &str = "user,arn,user_creation_time,password_enabled,access_key_1_active,access_key_1_last_rotated,\
                        access_key_1_last_used_date,access_key_1_last_used_region,access_key_1_last_used_service,\
                        access_key_2_active,access_key_2_last_rotated,access_key_2_last_used_date,\
                        access_key_2_last_used_region,access_key_2_last_used_service,cert_1_active";

    #[test]
    fn each_key_that_exists_is_told() {
        let lines = [
            HEAD,
            "<root_account>,arn:aws:iam::123456789012:root,2020-01-01T00:00:00+00:00,not_supported,true,2021-01-01T00:00:00+00:00,\
             N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,false",
            "ci,arn:aws:iam::123456789012:user/ci,2020-01-01T00:00:00+00:00,false,false,2022-02-02T00:00:00+00:00,\
             2023-03-03T00:00:00+00:00,eu-west-1,s3,true,2024-04-04T00:00:00+00:00,no_information,N/A,N/A,false",
            "nobody,arn:aws:iam::123456789012:user/nobody,2020-01-01T00:00:00+00:00,false,false,N/A,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,false",
            "",
        ];
        let assets: Vec<_> = keys(&lines.join("\n")).unwrap().into_iter().map(Key::into_asset).collect();
        let told: Vec<_> = assets.iter().map(|asset| (asset.name.as_str(), asset.enabled)).collect();
        assert_eq!(told, [("<root_account>/1", Some(true)), ("ci/1", Some(false)), ("ci/2", Some(true))]);
        assert_eq!(assets[1].external_id, "arn:aws:iam::123456789012:user/ci/accessKey/1");
        assert_eq!(assets[1].last_accessed_at.unwrap().to_rfc3339(), "2023-03-03T00:00:00+00:00");
        assert_eq!(assets[1].attributes["lastUse"], json!({"service": "s3", "region": "eu-west-1"}));
        assert_eq!(assets[2].created_at.unwrap().to_rfc3339(), "2024-04-04T00:00:00+00:00");
        assert!(!assets[2].attributes.contains_key("lastUse"));
    }

    #[test]
    fn something_else_is_no_report() {
        assert!(keys("").is_none());
        assert!(keys("user,arn\na,b").is_none());
        assert_eq!(keys(HEAD).unwrap().len(), 0);
    }
}
