//! Who issues the credentials of the in-memory cloud: access keys of users; and what becomes of an entry's versions.

use super::{Credentials, MOST_KEYS, entry::At, rejected};
use crate::providers::rotated::{self, Versions};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keywright_jobs::provider::{
    NOT_FOUND, ProviderError,
    rotation::{Abilities, CredentialIssuer, InUse, Listed, Prepared, QUOTA, SecretStore, SecretValue},
};
use std::time::{Duration, Instant};

/// The access keys of a user.
pub(super) struct Keys {
    pub at: At,
    pub user: String,
}

const KEYS: Abilities = Abilities {
    ours: false,
    applies: true,
    overlaps: true,
    disables: true,
    deletes: true,
    tells_use: true,
    limit: Some(MOST_KEYS),
    settle: Duration::ZERO,
    call_deadline: Duration::ZERO,
};

#[async_trait]
impl CredentialIssuer for Keys {
    fn abilities(&self) -> Abilities {
        KEYS
    }

    async fn identify(&self, _: &str, value: &SecretValue) -> Result<InUse, ProviderError> {
        let (id, _) = rotated::access_key(value)?;
        let find = |credentials: &mut Credentials| {
            let owner = credentials.users.iter().find(|(_, keys)| keys.iter().any(|key| key.id == id));
            owner.map(|(user, _)| user.clone()).ok_or_else(|| rejected(NOT_FOUND, "nobody has this key"))
        };
        let owner = self.at.calls.call("identify", &id, find).await?;
        let identity = format!("memory:{}:user/{owner}", self.at.calls.account);
        Ok(InUse { owner, identity, credential: id })
    }

    fn prepare(&self, _: &str, _: &SecretValue) -> Result<Option<Prepared>, ProviderError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Listed>, ProviderError> {
        let list = |credentials: &mut Credentials| {
            let keys = credentials.users.get(&self.user).into_iter().flatten();
            Ok(keys.map(|key| Listed { id: key.id.clone(), active: key.active, last_used_at: key.used }).collect())
        };
        self.at.calls.call("list", &self.user, list).await
    }

    async fn mint(
        &self,
        _: Option<&Prepared>,
        in_use: Option<&SecretValue>,
    ) -> Result<(String, SecretValue), ProviderError> {
        let mint = |credentials: &mut Credentials| {
            let works_from = Instant::now() + credentials.propagation;
            if credentials.users.get(&self.user).is_some_and(|keys| keys.len() >= MOST_KEYS) {
                return Err(rejected(QUOTA, "there are two already"));
            }
            let key = credentials.new_key(works_from);
            let (id, secret) = (key.id.clone(), key.secret.clone());
            credentials.users.entry(self.user.clone()).or_default().push(key);
            Ok((id, secret))
        };
        let (id, secret) = self.at.calls.call("mint", &self.user, mint).await?;
        let in_use = in_use.ok_or_else(|| rejected("no_value", "the value in use is needed"))?;
        let value = rotated::with_access_key(in_use, &id, &secret)?;
        Ok((id, value))
    }

    async fn prove(&self, value: &SecretValue) -> Result<bool, ProviderError> {
        let prove = |credentials: &mut Credentials| Ok(credentials.works(value.expose()).unwrap_or_default());
        self.at.calls.call("prove", &self.user, prove).await
    }

    async fn last_used(&self, id: &str) -> Result<Option<DateTime<Utc>>, ProviderError> {
        let used = |credentials: &mut Credentials| credentials.key(&self.user, id).map(|key| key.used);
        self.at.calls.call("last used", id, used).await
    }

    async fn set_active(&self, id: &str, active: bool) -> Result<(), ProviderError> {
        let set = |credentials: &mut Credentials| {
            credentials.key(&self.user, id)?.active = active;
            Ok(())
        };
        self.at.calls.call(if active { "enable" } else { "disable" }, id, set).await
    }

    async fn delete(&self, id: &str) -> Result<(), ProviderError> {
        let delete = |credentials: &mut Credentials| {
            if credentials.key(&self.user, id)?.active {
                credentials.broken.push(format!("{id} was deleted while it was active"));
            }
            credentials.users.entry(self.user.clone()).or_default().retain(|key| key.id != id);
            Ok(())
        };
        self.at.calls.call("delete", id, delete).await
    }
}

#[async_trait]
impl Versions for At {
    fn switches(&self) -> bool {
        !self.stages()
    }

    fn call_deadline(&self) -> Duration {
        Duration::ZERO
    }

    async fn set_active(&self, id: &str, active: bool) -> Result<(), ProviderError> {
        let set = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            if active {
                entry.disabled.remove(id);
            } else {
                entry.disabled.insert(id.to_owned());
            }
            Ok(())
        };
        self.calls.call(if active { "enable" } else { "disable" }, id, set).await
    }

    async fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        let destroy = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            if entry.disabled.contains(id) {
                entry.destroyed.insert(id.to_owned());
            } else {
                credentials.broken.push(format!("{id} was destroyed while it was enabled"));
            }
            Ok(())
        };
        self.calls.call("delete", id, destroy).await
    }
}
