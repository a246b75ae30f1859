//! What a scan observes, in words that fit every cloud.
//!
//! An [`Observed`] asset holds metadata only: there is no field in which the value of a secret or a private key could be put.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub use keywright_entities::types::{AssetType, ProviderKind};

/// One unit of listing: a kind of asset in one region of one subscription.
///
/// A scope is listed by one job at a time, succeeds or fails as a whole, and only a scope that was listed to its last page
/// may declare assets removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScopeId {
    /// The provider's region name, or `global` / `local` where the provider has none.
    pub region: String,
    /// The asset kind, e.g. `aws.secretsmanager.secret`.
    pub kind: String,
}

/// One asset as the provider described it at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub asset_type: AssetType,
    /// e.g. `aws.secretsmanager.secret`, `aws.acm.certificate`, `local.file.certificate`, `local.tls.certificate`.
    pub kind: String,
    /// The container a person would look in: a vault, a directory, `secretsmanager`.
    pub vault: String,
    pub name: String,
    /// The provider's own stable identifier (an ARN, a path with position); unique within (subscription, region, kind).
    pub external_id: String,
    /// `None` where the provider has no such notion.
    pub enabled: Option<bool>,
    pub created_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub not_before: Option<DateTime<Utc>>,
    pub last_rotated_at: Option<DateTime<Utc>>,
    pub last_accessed_at: Option<DateTime<Utc>>,
    pub last_changed_at: Option<DateTime<Utc>>,
    pub tags: BTreeMap<String, String>,
    pub certificate: Option<CertificateFacts>,
    /// Everything else the provider says about it, camelCase keys. Never a value.
    pub attributes: Map<String, Value>,
    /// What it hangs together with, as far as the provider tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<Related>,
}

/// One end of a relation between two things; the other is the asset that carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Related {
    pub relation: Relation,
    /// The provider's own identifier of the other end, e.g. an ARN. It need not be in the inventory.
    pub to: String,
}

/// What the asset is to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// A certificate, by a load balancer or a distribution.
    UsedBy,
    /// A secret or parameter, by a key.
    EncryptedBy,
    /// A key, by the name of an alias.
    NamedBy,
    /// A credential, by a user or service account.
    BelongsTo,
}

/// An asset with what only calls for this one asset tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Detailed {
    pub asset: Observed,
    pub warnings: Vec<Warning>,
}

/// An account, project or subscription of the provider's organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What a subscription has as its `externalId`.
    pub external_id: String,
    pub name: String,
    /// The provider's own word, e.g. `ACTIVE`, `SUSPENDED`.
    pub state: String,
}

/// As whom somebody is logged in to a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The account that this identity belongs to, as a subscription has it as its `externalId`.
    pub account: Option<String>,
    /// The provider's own name of it: an ARN, the e-mail address of a service account.
    pub principal: Option<String>,
}

/// The facts of an X.509 certificate (RFC 5280), as shown to clients under `certificate`.
///
/// Whoever parsed the certificate knows all of them. A cloud's list knows some: what it does not tell is `None`, never a guess.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    pub subject: Option<String>,
    pub issuer: Option<String>,
    /// Lower-case hex without separators.
    pub serial: Option<String>,
    /// DNS names, IP addresses, e-mail addresses and URIs, as text, in the certificate's order.
    pub sans: Vec<String>,
    /// `RSA`, `EC`, `Ed25519`, … or the dotted OID of an algorithm we have no name for.
    pub key_algorithm: String,
    pub key_bits: Option<u32>,
    /// e.g. `sha256WithRSAEncryption`, or the dotted OID.
    pub signature_algorithm: Option<String>,
    /// Lower-case hex SHA-256 of the DER.
    pub fingerprint_sha256: Option<String>,
    pub self_signed: Option<bool>,
    pub is_ca: Option<bool>,
}

/// Something that could not be read, told instead of dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Where: a file path, an endpoint, an ARN.
    pub path: String,
    /// A stable word, e.g. `unreadable`, `invalid_der`, `tls_too_old`.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
}

impl Warning {
    pub fn new(path: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { path: path.into(), code: code.to_owned(), detail: detail.into() }
    }

    /// The code of [`Warning::denied`].
    pub const DETAILS_DENIED: &str = "details_denied";

    /// Some of what belongs to an asset may not be read. Told once per scope and permission, however many assets it is about.
    pub fn denied(permission: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(permission, Self::DETAILS_DENIED, detail)
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub assets: Vec<Observed>,
    pub warnings: Vec<Warning>,
    /// Where the next page begins; `None` after the last one. Opaque to everybody but the provider that made it.
    pub next: Option<String>,
}

/// The tags that tell whose an asset is and where it is used: the first key that it carries counts, whatever its case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TagKeys {
    pub owner_keys: Vec<String>,
    pub environment_keys: Vec<String>,
}

impl Default for TagKeys {
    fn default() -> Self {
        let keys = |keys: [&str; 3]| keys.map(str::to_owned).to_vec();
        Self { owner_keys: keys(["owner", "team", "contact"]), environment_keys: keys(["environment", "env", "stage"]) }
    }
}

impl Observed {
    /// Who looks after it, by its tags.
    pub fn owner(&self, keys: &TagKeys) -> Option<&str> {
        self.tagged(&keys.owner_keys)
    }

    /// `production`, `staging`, …, by its tags.
    pub fn environment(&self, keys: &TagKeys) -> Option<&str> {
        self.tagged(&keys.environment_keys)
    }

    fn tagged(&self, keys: &[String]) -> Option<&str> {
        keys.iter().find_map(|key| {
            self.tags.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
        })
    }
}

/// How close to its end an asset is; derived when read, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    Warning,
    Critical,
    Expired,
    /// It has no date.
    Unknown,
}

/// Days before the end at which an asset becomes `critical` and `warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    pub critical_days: i64,
    pub warning_days: i64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { critical_days: 7, warning_days: 30 }
    }
}

impl Thresholds {
    /// The status of something that ends at `expires_at`: both bounds belong to the more urgent side.
    pub fn status(self, expires_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Status {
        let (critical, warning) = self.bounds(now);
        match expires_at {
            None => Status::Unknown,
            Some(end) if end <= now => Status::Expired,
            Some(end) if end <= critical => Status::Critical,
            Some(end) if end <= warning => Status::Warning,
            Some(_) => Status::Healthy,
        }
    }

    /// The last instants at which something critical, and something to be warned of, ends.
    pub fn bounds(self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let days = chrono::Duration::days;
        (now + days(self.critical_days), now + days(self.warning_days))
    }
}

#[cfg(test)]
mod tests {
    use super::{Status, Thresholds};
    use chrono::{DateTime, Duration, Utc};

    #[test]
    fn bounds_belong_to_the_more_urgent_side() {
        let now: DateTime<Utc> = "2026-05-20T10:30:00Z".parse().unwrap();
        let status = |seconds| Thresholds::default().status(Some(now + Duration::seconds(seconds)), now);
        let day = 86_400;
        for (seconds, expected) in [
            (-1, Status::Expired),
            (0, Status::Expired),
            (1, Status::Critical),
            (7 * day, Status::Critical),
            (7 * day + 1, Status::Warning),
            (30 * day, Status::Warning),
            (30 * day + 1, Status::Healthy),
        ] {
            assert_eq!(status(seconds), expected, "{seconds} s");
        }
        assert_eq!(Thresholds::default().status(None, now), Status::Unknown);
    }
}
