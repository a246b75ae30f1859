//! What a subscription stores to log in with: taken, sealed, and never told again.

use super::input::AuthMode;
use crate::error::{ApiError, FieldError};
use keywright_entities::{subscription, subscription_credential};
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
    pub fn change(self, before: Option<&str>, wrong: &mut Vec<FieldError>) -> Change {
        let [secret, session] =
            [self.secret_access_key, self.session_token].map(|secret| secret.map(|secret| Zeroizing::new(secret.0)));
        let given = [self.access_key_id.is_some(), secret.is_some(), session.is_some()];
        let names = ["accessKeyId", "secretAccessKey", "sessionToken"];
        if self.mode != AuthMode::Stored {
            let foreign = names.iter().zip(given).filter(|(_, given)| *given);
            wrong.extend(foreign.map(|(name, _)| refusal(name, "foreign", "Only the mode stored takes a credential.")));
            return Change::Remove;
        }
        if given == [false; 3] && before == Some(AuthMode::Stored.as_str()) {
            return Change::Keep;
        }
        match (self.access_key_id, secret) {
            (Some(id), Some(secret)) => {
                Change::Store(object(&id, &secret, session.as_ref().map(|session| session.as_str())))
            }
            (id, secret) => {
                let missing = names.iter().zip([id.is_none(), secret.is_none()]).filter(|(_, missing)| *missing);
                let message = "The mode stored needs an access key: its id and its secret.";
                wrong.extend(missing.map(|(name, _)| refusal(name, "required", message)));
                Change::Keep
            }
        }
    }
}

fn refusal(name: &str, code: &str, message: &str) -> FieldError {
    FieldError::new(format!("/auth/{name}"), code, message)
}

/// The object as text, written by hand so that each secret is copied once. The patterns let no character through that JSON
/// would escape.
fn object(id: &str, secret: &str, session: Option<&str>) -> Zeroizing<Vec<u8>> {
    let session = session.map(|session| [",\"sessionToken\":\"", session, "\""]).unwrap_or_default();
    let parts =
        [&["{\"accessKeyId\":\"", id, "\",\"secretAccessKey\":\"", secret, "\""][..], &session, &["}"]].concat();
    // at once as long as it will be: growing would leave copies behind
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
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
        for (session, expected) in [
            (None, json!({"accessKeyId": "AKIA", "secretAccessKey": "a/b+c="})),
            (Some("t.1"), json!({"accessKeyId": "AKIA", "secretAccessKey": "a/b+c=", "sessionToken": "t.1"})),
        ] {
            let bytes = object("AKIA", "a/b+c=", session);
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
            assert_eq!(bytes.len(), bytes.capacity());
        }
    }
}
