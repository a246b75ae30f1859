//! Secret Manager: what secrets there are, and what versions they have. Neither tells a value.

use super::{
    error::NOT_FOUND,
    facts::{attributes, instant},
    rest::{Question, Rest},
};
use chrono::{DateTime, Utc};
use keywright_jobs::{
    domain::inventory::{AssetType, Detailed, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(super) const KIND: &str = "gcp.secretmanager.secret";
const VAULT: &str = "secretmanager";
/// A new version shows in no list of secrets, and reading the versions costs a call for each: at the 600 a minute that a project
/// has, 100,000 secrets take almost three hours.
pub(super) const CADENCE: Duration = Duration::from_secs(24 * 3600);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    secrets: Vec<Secret>,
    next_page_token: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Secret {
    name: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    etag: String,
    labels: BTreeMap<String, String>,
    annotations: Map<String, Value>,
    topics: Vec<Topic>,
    rotation: Rotation,
    replication: Replication,
    /// Of a regional secret.
    customer_managed_encryption: Option<Encryption>,
    version_aliases: Map<String, Value>,
    version_destroy_ttl: String,
    secret_type: String,
}

#[derive(Deserialize)]
struct Topic {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rotation {
    rotation_period: Option<String>,
    next_rotation_time: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Replication {
    automatic: Option<Replica>,
    user_managed: Option<UserManaged>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserManaged {
    replicas: Vec<Replica>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Replica {
    location: String,
    customer_managed_encryption: Option<Encryption>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encryption {
    kms_key_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListedVersions {
    versions: Vec<Version>,
    next_page_token: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    name: String,
    create_time: Option<String>,
    state: String,
}

/// One page of the secrets in a region.
pub(super) async fn page(rest: &Rest, project: &str, region: &str, token: Option<&str>) -> Result<Page, ProviderError> {
    let listed: Listed = rest.ask(Question::Secrets { project, region }, token).await?;
    let mut page = Page { next: next(listed.next_page_token, token)?, ..Page::default() };
    for secret in listed.secrets {
        match observe(secret) {
            Ok(asset) => page.assets.push(asset),
            Err(warning) => page.warnings.push(warning),
        }
    }
    Ok(page)
}

/// The token of the page after, which must lead on.
pub(super) fn next(told: String, token: Option<&str>) -> Result<Option<String>, ProviderError> {
    if !told.is_empty() && token == Some(told.as_str()) {
        return Err(ProviderError::Rejected {
            code: "unexpected_reply".to_owned(),
            detail: "Google Cloud gave the same page token twice".to_owned(),
        });
    }
    Ok(Some(told).filter(|told| !told.is_empty()))
}

/// Adds what the secret's versions tell.
pub(super) async fn complete(rest: &Rest, region: &str, mut secret: Observed) -> Result<Detailed, ProviderError> {
    let question = Question::Versions { secret: &secret.external_id, region };
    let (mut versions, mut token, mut again) = (Versions::default(), None::<String>, false);
    let denied = loop {
        let listed: ListedVersions = match rest.ask(question, token.as_deref()).await {
            Ok(listed) => listed,
            Err(ProviderError::Denied { detail, .. }) => break Some(detail),
            // a page token that expires in the middle of one secret: its versions are counted anew, once
            Err(ProviderError::PageExpired) if !again => {
                (versions, token, again) = (Versions::default(), None, true);
                continue;
            }
            Err(error) => return Err(error),
        };
        listed.versions.iter().for_each(|version| versions.count(version));
        token = next(listed.next_page_token, token.as_deref())?;
        if token.is_none() {
            break None;
        }
    };
    let Some(detail) = denied else {
        versions.tell(&mut secret);
        return Ok(Detailed { asset: secret, warnings: Vec::new() });
    };
    let detail = format!("The secret is listed without what its versions tell ({detail}).");
    let warnings = vec![Warning::new(&secret.external_id, "not_described", detail)];
    Ok(Detailed { asset: secret, warnings })
}

/// What is kept of a secret's versions: there may be thousands.
#[derive(Default)]
struct Versions {
    by_state: BTreeMap<String, u64>,
    latest: Option<(u64, Option<DateTime<Utc>>, String)>,
    latest_enabled: Option<u64>,
}

impl Versions {
    fn count(&mut self, version: &Version) {
        *self.by_state.entry(version.state.to_ascii_lowercase()).or_default() += 1;
        let Some(number) = version.name.rsplit('/').next().and_then(|number| number.parse().ok()) else { return };
        // `latest` is the version made last, whatever its state
        if self.latest.as_ref().is_none_or(|(latest, ..)| *latest < number) {
            self.latest = Some((number, instant(version.create_time.as_deref()), version.state.clone()));
        }
        if version.state == "ENABLED" {
            self.latest_enabled = self.latest_enabled.max(Some(number));
        }
    }

    fn tell(self, secret: &mut Observed) {
        secret.enabled = Some(self.by_state.contains_key("enabled"));
        let (number, created, state) =
            self.latest.map_or((None, None, None), |(n, at, state)| (Some(n), at, Some(state)));
        secret.last_rotated_at = created;
        secret.attributes.extend(attributes([
            ("versionCount", self.by_state.values().sum::<u64>().into()),
            ("versionStates", json!(self.by_state)),
            ("latestVersion", json!(number)),
            ("latestVersionState", json!(state)),
            ("latestEnabledVersion", json!(self.latest_enabled)),
        ]));
    }
}

fn observe(secret: Secret) -> Result<Observed, Warning> {
    let Some((_, name)) = secret.name.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Err(Warning::new(secret.name, "unexpected_reply", "Secret Manager listed a secret without a name."));
    };
    let name = name.to_owned();
    let automatic = secret.replication.automatic.is_some();
    let replicas = secret.replication.user_managed.unwrap_or_default().replicas;
    let locations: Vec<&str> = replicas.iter().map(|replica| replica.location.as_str()).collect();
    let replication = match (automatic, locations.is_empty()) {
        (true, _) => json!({"automatic": true}),
        (false, false) => json!({"locations": locations}),
        (false, true) => Value::Null,
    };
    let described = attributes([
        ("replication", replication),
        ("rotationPeriod", json!(secret.rotation.rotation_period)),
        ("nextRotationTime", json!(secret.rotation.next_rotation_time)),
        ("topics", secret.topics.into_iter().map(|topic| topic.name).collect()),
        ("annotations", secret.annotations.into()),
        ("versionAliases", secret.version_aliases.into()),
        ("versionDestroyTtl", secret.version_destroy_ttl.into()),
        ("secretType", secret.secret_type.into()),
        ("etag", secret.etag.into()),
    ]);
    let replicated = secret.replication.automatic.into_iter().chain(replicas);
    let keys =
        replicated.map(|replica| replica.customer_managed_encryption).chain([secret.customer_managed_encryption]);
    let keys: BTreeSet<String> = keys.flatten().map(|encryption| encryption.kms_key_name).collect();
    Ok(Observed {
        asset_type: AssetType::Secret,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name,
        external_id: secret.name,
        // its versions tell
        enabled: None,
        created_at: instant(secret.create_time.as_deref()),
        expires_at: instant(secret.expire_time.as_deref()),
        not_before: None,
        last_rotated_at: None,
        // no list of Google's tells who read it last
        last_accessed_at: None,
        last_changed_at: None,
        tags: secret.labels,
        certificate: None,
        attributes: described,
        relations: keys.into_iter().map(|to| Related { relation: Relation::EncryptedBy, to }).collect(),
    })
}

/// Whether it vanished since it was listed.
pub(super) fn is_gone(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Rejected { code, .. } if code == NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(secret: Value) -> Observed {
        observe(serde_json::from_value(secret).unwrap()).unwrap()
    }

    #[test]
    fn a_listed_secret_keeps_everything_that_the_list_tells() {
        let key = |name: &str| json!({"kmsKeyName": name});
        let asset = observed(json!({
            "name": "projects/1/secrets/db", "createTime": "2024-01-02T03:04:05.678901234Z",
            "expireTime": "2030-01-01T00:00:00Z", "etag": "\"e\"", "labels": {"owner": "payments"},
            "annotations": {"ticket": "X-1"}, "topics": [{"name": "projects/1/topics/t"}],
            "rotation": {"rotationPeriod": "2592000s", "nextRotationTime": "2024-02-01T00:00:00Z"},
            "replication": {"userManaged": {"replicas": [
                {"location": "us-east1", "customerManagedEncryption": key("k1")},
                {"location": "europe-west1", "customerManagedEncryption": key("k2")},
            ]}},
            "versionAliases": {"prod": "3"}, "versionDestroyTtl": "86400s", "aFieldOfTomorrow": {"x": 1},
        }));
        assert_eq!((asset.name.as_str(), asset.external_id.as_str()), ("db", "projects/1/secrets/db"));
        assert_eq!((asset.enabled, asset.last_rotated_at), (None, None));
        assert_eq!(asset.created_at.unwrap().to_rfc3339(), "2024-01-02T03:04:05.678901+00:00");
        assert_eq!(asset.expires_at.unwrap().to_rfc3339(), "2030-01-01T00:00:00+00:00");
        assert_eq!(asset.tags.get("owner").map(String::as_str), Some("payments"));
        let keys: Vec<_> = asset.relations.iter().map(|related| (related.relation, related.to.as_str())).collect();
        assert_eq!(keys, [(Relation::EncryptedBy, "k1"), (Relation::EncryptedBy, "k2")]);
        assert_eq!(
            Value::from(asset.attributes),
            json!({
                "replication": {"locations": ["us-east1", "europe-west1"]},
                "rotationPeriod": "2592000s",
                "nextRotationTime": "2024-02-01T00:00:00Z",
                "topics": ["projects/1/topics/t"],
                "annotations": {"ticket": "X-1"},
                "versionAliases": {"prod": "3"},
                "versionDestroyTtl": "86400s",
                "etag": "\"e\"",
            })
        );
    }

    #[test]
    fn a_plain_secret_says_no_more_than_it_is() {
        let asset = observed(json!({"name": "projects/1/secrets/a", "replication": {"automatic": {}}}));
        assert_eq!(Value::from(asset.attributes), json!({"replication": {"automatic": true}}));
        let key = json!({"automatic": {"customerManagedEncryption": {"kmsKeyName": "k"}}});
        assert_eq!(observed(json!({"name": "projects/1/secrets/a", "replication": key})).relations.len(), 1);
        let regional = json!({"name": "projects/1/locations/us-east1/secrets/a", "customerManagedEncryption": {"kmsKeyName": "k"}});
        assert_eq!(observed(regional).relations.len(), 1);
    }

    #[test]
    fn an_entry_without_a_name_is_told_not_dropped() {
        assert_eq!(observe(Secret::default()).unwrap_err().code, "unexpected_reply");
    }

    #[test]
    fn versions_tell_when_a_secret_was_last_rotated_and_whether_it_can_be_used() {
        let version = |number: u64, state: &str| Version {
            name: format!("projects/1/secrets/a/versions/{number}"),
            create_time: Some(format!("2024-01-{number:02}T00:00:00Z")),
            state: state.to_owned(),
        };
        let told = |versions: &[Version]| {
            let mut asset = observed(json!({"name": "projects/1/secrets/a"}));
            let mut all = Versions::default();
            versions.iter().for_each(|version| all.count(version));
            all.tell(&mut asset);
            asset
        };
        let rotated =
            told(&[version(11, "DISABLED"), version(10, "ENABLED"), version(9, "DESTROYED"), version(2, "ENABLED")]);
        assert_eq!(rotated.enabled, Some(true));
        assert_eq!(rotated.last_rotated_at.unwrap().to_rfc3339(), "2024-01-11T00:00:00+00:00");
        assert_eq!(
            Value::from(rotated.attributes),
            json!({
                "versionCount": 4, "versionStates": {"enabled": 2, "disabled": 1, "destroyed": 1},
                "latestVersion": 11, "latestVersionState": "DISABLED", "latestEnabledVersion": 10,
            })
        );
        let spent = told(&[version(1, "DESTROYED")]);
        assert_eq!((spent.enabled, spent.attributes.get("latestEnabledVersion")), (Some(false), None));
        let empty = told(&[]);
        assert_eq!((empty.enabled, empty.last_rotated_at), (Some(false), None));
        assert_eq!(Value::from(empty.attributes), json!({"versionCount": 0}));
    }
}
