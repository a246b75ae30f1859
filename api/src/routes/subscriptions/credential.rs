//! What a subscription stores to log in with: taken, sealed, and never told again.

use super::{input::AuthMode, service_account_key::ServiceAccountKey};
use crate::error::{ApiError, FieldError};
use keywright_entities::{subscription, subscription_credential, types::ProviderKind};
use keywright_jobs::setup::sealing::{SealError, Sealing, places};
use poem_openapi::{Object, types::Password};
use sea_orm::{ConnectionTrait, EntityTrait, Set, sea_query::OnConflict};
use std::fmt;
use zeroize::Zeroizing;

/// As whom the provider is asked. What follows `mode` is for `stored`, is kept sealed and never shown; a patch that gives none of
/// it leaves what is stored as it is.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct AuthInput {
    pub mode: AuthMode,
    /// The id of an access key (aws).
    #[oai(validator(min_length = 16, max_length = 128, pattern = "^[A-Za-z0-9]+$"))]
    pub access_key_id: Option<String>,
    /// The access key's secret (aws).
    #[oai(validator(min_length = 1, max_length = 1024, pattern = "^[A-Za-z0-9+/=]+$"))]
    pub secret_access_key: Option<Password>,
    /// Of a temporary access key (aws).
    #[oai(validator(min_length = 1, max_length = 8192, pattern = "^[A-Za-z0-9+/=_.:-]+$"))]
    pub session_token: Option<Password>,
    /// The file of a service account's key (gcp).
    pub service_account_key: Option<ServiceAccountKey>,
}

/// Not what was sent.
impl fmt::Debug for AuthInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthInput").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What becomes of the stored credential. Has neither `Debug` nor `Serialize`; wiped when dropped.
pub enum Change {
    Keep,
    Remove,
    /// The provider's own JSON object.
    Store(Zeroizing<Vec<u8>>),
}

impl AuthInput {
    /// What to do, where `before` is the mode so far; what is wrong goes to `wrong`.
    pub fn change(self, provider: ProviderKind, before: Option<&str>, wrong: &mut Vec<FieldError>) -> Change {
        let [secret, session] =
            [self.secret_access_key, self.session_token].map(|secret| secret.map(|secret| Zeroizing::new(secret.0)));
        let given = [
            ("accessKeyId", self.access_key_id.is_some()),
            ("secretAccessKey", secret.is_some()),
            ("sessionToken", session.is_some()),
            ("serviceAccountKey", self.service_account_key.is_some()),
        ];
        let stored = self.mode == AuthMode::Stored;
        let google = provider == ProviderKind::Gcp;
        let message = match stored {
            true => "This is the credential of another provider.",
            false => "Only the mode stored takes a credential.",
        };
        let foreign =
            given.iter().filter(|(name, given)| *given && (!stored || google != (*name == "serviceAccountKey")));
        wrong.extend(foreign.map(|(name, _)| refusal(name, "foreign", message)));
        if !stored {
            return Change::Remove;
        }
        if given.iter().all(|(_, given)| !given) && before == Some(AuthMode::Stored.as_str()) {
            return Change::Keep;
        }
        if google {
            return match self.service_account_key {
                Some(key) => key.stored(wrong),
                None => {
                    let message = "The mode stored needs the file of a service account's key.";
                    wrong.push(refusal("serviceAccountKey", "required", message));
                    Change::Keep
                }
            };
        }
        match (self.access_key_id, secret) {
            (Some(id), Some(secret)) => {
                let session = session.as_ref().map(|session| ("sessionToken", session.as_str()));
                let fields = [Some(("accessKeyId", id.as_str())), Some(("secretAccessKey", &*secret)), session];
                Change::Store(object(&fields.into_iter().flatten().collect::<Vec<_>>()))
            }
            (id, secret) => {
                let missing = [("accessKeyId", id.is_none()), ("secretAccessKey", secret.is_none())];
                let message = "The mode stored needs an access key: its id and its secret.";
                let missing = missing.iter().filter(|(_, missing)| *missing);
                wrong.extend(missing.map(|(name, _)| refusal(name, "required", message)));
                Change::Keep
            }
        }
    }
}

pub(super) fn refusal(name: &str, code: &str, message: &str) -> FieldError {
    FieldError::new(format!("/auth/{name}"), code, message)
}

/// The object as text, written by hand so that each secret is copied once. The patterns let no character through that JSON
/// would escape, but the ends of lines in a key.
pub(super) fn object(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let line_ends = |text: &str| text.bytes().filter(|b| *b == b'\n').count();
    let length = fields.iter().map(|(name, value)| name.len() + value.len() + line_ends(value) + 6).sum::<usize>() + 1;
    // at once as long as it will be: growing would leave copies behind
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    for (name, value) in fields {
        let opening = if bytes.is_empty() { b"{\"" } else { b",\"" };
        bytes.extend_from_slice(opening);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\":\"");
        for (number, line) in value.split('\n').enumerate() {
            bytes.extend_from_slice(if number == 0 { b"" } else { b"\\n" });
            bytes.extend_from_slice(line.as_bytes());
        }
        bytes.push(b'"');
    }
    bytes.push(b'}');
    bytes
}

impl Change {
    /// Carries it out in the transaction of the subscription's own change, of which `row` is the outcome.
    ///
    /// # Errors
    /// 500 when it cannot be sealed, 503 when the database is away.
    pub async fn store(
        self,
        db: &impl ConnectionTrait,
        sealing: &Sealing,
        row: &subscription::Model,
    ) -> Result<(), ApiError> {
        let secret = match self {
            Self::Keep => return Ok(()),
            Self::Remove => return Ok(subscription_credential::remove(db, row.id).await?),
            Self::Store(secret) => secret,
        };
        let id = row.id.to_string();
        let sealed =
            sealing.seal(db, &places::credential(&id, row.version), &secret).await.map_err(|error| match error {
                SealError::Database(error) => error.into(),
                error => ApiError::internal(error),
            })?;
        let stored = subscription_credential::ActiveModel {
            subscription_id: Set(row.id),
            version: Set(row.version),
            key_id: Set(sealed.key_id),
            sealed: Set(sealed.bytes),
            stored_at: Set(row.auth_updated_at),
        };
        use subscription_credential::Column::{KeyId, Sealed, StoredAt, SubscriptionId, Version};
        subscription_credential::Entity::insert(stored)
            .on_conflict(
                OnConflict::column(SubscriptionId).update_columns([Version, KeyId, Sealed, StoredAt]).to_owned(),
            )
            .exec_without_returning(db)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_object_is_json_of_exactly_its_length() {
        let lines = "-----BEGIN-----\nMII=\n-----END-----\n";
        for fields in [
            &[("accessKeyId", "AKIA"), ("secretAccessKey", "a/b+c=")][..],
            &[("accessKeyId", "AKIA"), ("secretAccessKey", "a/b+c="), ("sessionToken", "t.1")],
            &[("private_key", lines), ("project_id", "acme-prod")],
        ] {
            let expected: Value = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            let bytes = object(fields);
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
            assert_eq!(bytes.len(), bytes.capacity());
        }
    }
}
