//! An entry of the in-memory cloud as a store.

use super::{Credentials, MemoryRotations, rejected};
use async_trait::async_trait;
use keywright_jobs::provider::{
    NOT_FOUND, ProviderError,
    rotation::{Held, MOVED, SecretStore, SecretValue},
};

/// One entry.
#[derive(Clone)]
pub(super) struct At {
    pub calls: MemoryRotations,
    pub entry: String,
}

#[async_trait]
impl SecretStore for At {
    fn stages(&self) -> bool {
        !self.calls.cloud.lock().credentials.entries.get(&self.entry).is_some_and(|entry| entry.single)
    }

    async fn held(&self) -> Result<Held, ProviderError> {
        let held = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            Ok(Held { current: entry.current.clone(), pending: entry.pending.clone() })
        };
        self.calls.call("held", &self.entry, held).await
    }

    async fn read(&self, version: &str) -> Result<SecretValue, ProviderError> {
        let read = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            let gone = entry.destroyed.contains(version) || entry.disabled.contains(version);
            let value = entry.values.get(version).filter(|_| !gone);
            value.cloned().map(SecretValue::new).ok_or_else(|| rejected(NOT_FOUND, "there is no such version"))
        };
        self.calls.call("read", &self.entry, read).await
    }

    async fn stage(&self, token: &str, value: &SecretValue) -> Result<String, ProviderError> {
        let stage = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            if entry.values.get(token).is_some_and(|held| held != value.expose()) {
                return Err(rejected("exists", "this token has another value"));
            }
            entry.values.insert(token.to_owned(), value.expose().to_vec());
            entry.pending = Some(token.to_owned());
            Ok(token.to_owned())
        };
        self.calls.call("stage", &self.entry, stage).await
    }

    async fn unstage(&self, version: &str) -> Result<(), ProviderError> {
        let unstage = |credentials: &mut Credentials| {
            let entry = credentials.entry(&self.entry)?;
            if entry.pending.as_deref() != Some(version) {
                return Err(rejected(NOT_FOUND, "it is not pending"));
            }
            entry.pending = None;
            Ok(())
        };
        self.calls.call("unstage", &self.entry, unstage).await
    }

    async fn promote(
        &self,
        expected: Option<&str>,
        version: Option<&str>,
        value: &SecretValue,
    ) -> Result<String, ProviderError> {
        let promote = |credentials: &mut Credentials| {
            credentials.made += 1;
            let number = credentials.made;
            let entry = credentials.entry(&self.entry)?;
            let version = if entry.single {
                let name = format!("v{number}");
                entry.values.insert(name.clone(), value.expose().to_vec());
                name
            } else {
                if entry.current.as_deref() != expected {
                    return Err(rejected(MOVED, "something else is current"));
                }
                version.unwrap_or_default().to_owned()
            };
            entry.current = Some(version.clone());
            entry.promoted.push(version.clone());
            if entry.pending.as_ref() == Some(&version) {
                entry.pending = None;
            }
            Ok(version)
        };
        self.calls.call("promote", &self.entry, promote).await
    }
}
