//! Random texts that are only stored: nobody is told about them, and the store's versions are the credentials.

use super::generated;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keywright_jobs::{
    domain::rotation::Characters,
    provider::{
        ProviderError,
        rotation::{Abilities, CredentialIssuer, InUse, Listed, Prepared, SecretValue},
    },
};
use std::time::Duration;

/// What a store can do with a version that is not current any more.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Whether it can be switched off and on, and deleted.
    fn switches(&self) -> bool;

    /// A call that was handed over longer ago than this can no longer arrive.
    fn call_deadline(&self) -> Duration;

    async fn set_active(&self, version: &str, active: bool) -> Result<(), ProviderError>;

    async fn destroy(&self, version: &str) -> Result<(), ProviderError>;
}

/// Issues texts for one entry.
pub struct Texts<V> {
    /// Names the entry over all subscriptions.
    pub identity: String,
    pub versions: V,
    pub length: u16,
    pub characters: Characters,
    pub json_key: Option<String>,
}

#[async_trait]
impl<V: Versions> CredentialIssuer for Texts<V> {
    fn abilities(&self) -> Abilities {
        let switches = self.versions.switches();
        Abilities {
            ours: true,
            applies: false,
            overlaps: true,
            disables: switches,
            deletes: switches,
            tells_use: false,
            limit: None,
            settle: Duration::ZERO,
            call_deadline: self.versions.call_deadline(),
        }
    }

    async fn identify(&self, version: &str, value: &SecretValue) -> Result<InUse, ProviderError> {
        // that a new one could take its place shows here, before anything is begun
        self.prepare("", value)?;
        let identity = self.identity.clone();
        Ok(InUse { owner: identity.clone(), identity, credential: version.to_owned() })
    }

    fn prepare(&self, token: &str, in_use: &SecretValue) -> Result<Option<Prepared>, ProviderError> {
        let value = generated(in_use, self.length, self.characters, self.json_key.as_deref())?;
        Ok(Some(Prepared { id: token.to_owned(), value }))
    }

    async fn list(&self) -> Result<Vec<Listed>, ProviderError> {
        Ok(Vec::new())
    }

    async fn mint(
        &self,
        _: Option<&Prepared>,
        _: Option<&SecretValue>,
    ) -> Result<(String, SecretValue), ProviderError> {
        // nothing that the machine asks for, by these abilities
        Err(ProviderError::Rejected {
            code: "nobody_to_tell".to_owned(),
            detail: "a generated text is only stored: there is nobody to tell about it".to_owned(),
        })
    }

    async fn prove(&self, _: &SecretValue) -> Result<bool, ProviderError> {
        Ok(true)
    }

    async fn last_used(&self, _: &str) -> Result<Option<DateTime<Utc>>, ProviderError> {
        Ok(None)
    }

    async fn set_active(&self, version: &str, active: bool) -> Result<(), ProviderError> {
        self.versions.set_active(version, active).await
    }

    async fn delete(&self, version: &str) -> Result<(), ProviderError> {
        self.versions.destroy(version).await
    }
}
