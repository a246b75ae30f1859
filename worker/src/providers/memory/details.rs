//! What only a closer look tells of the assets in memory. Lists tell everything until [`MemoryCloud::details`] says otherwise.

use super::{MemoryCloud, Operation};
use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{Detailed, Observed, ScopeId, Warning},
    provider::{Details, Gate, NOT_FOUND, ProviderError},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

#[derive(Default)]
pub(super) struct Described {
    cadence: Option<Duration>,
    no_change_token: bool,
    /// Attributes by external id.
    attributes: BTreeMap<String, BTreeMap<String, Value>>,
    /// Permissions that are lacking for a part of what is told.
    lacking: Vec<String>,
}

impl MemoryCloud {
    /// From now on assets have details, which stay good for this long.
    pub fn details(&self, cadence: Duration) {
        self.lock().described.cadence = Some(cadence);
    }

    /// The lists do not tell whether an asset changed.
    pub fn without_change_token(&self) {
        self.lock().described.no_change_token = true;
    }

    /// A closer look at the asset tells this attribute; beside `looked`, which all have.
    pub fn describe(&self, external_id: &str, name: &str, value: impl Into<Value>) {
        let mut state = self.lock();
        let attributes = state.described.attributes.entry(external_id.to_owned()).or_default();
        attributes.insert(name.to_owned(), value.into());
    }

    /// A closer look tells only what needs no such permission: `looked`.
    pub fn describe_without(&self, permission: &str) {
        self.lock().described.lacking.push(permission.to_owned());
    }
}

pub(super) struct MemoryDetails {
    pub cloud: MemoryCloud,
    pub account: String,
    pub gate: Gate,
}

#[async_trait]
impl Details for MemoryDetails {
    fn cadence(&self, _: &str) -> Option<Duration> {
        self.cloud.lock().described.cadence
    }

    fn has_change_token(&self, _: &str) -> bool {
        !self.cloud.lock().described.no_change_token
    }

    async fn complete(&self, scope: &ScopeId, listed: Observed) -> Result<Detailed, ProviderError> {
        let operation = Operation::Complete { scope: scope.clone(), asset: listed.external_id.clone() };
        self.cloud.call(&self.gate, &self.account, operation).await?;
        let state = self.cloud.lock();
        let there = state.accounts.get(&self.account).and_then(|scopes| scopes.get(scope));
        if !there.is_some_and(|scope| scope.assets.contains_key(&listed.external_id)) {
            let detail = format!("there is no {}", listed.external_id);
            return Err(ProviderError::Rejected { code: NOT_FOUND.to_owned(), detail });
        }
        let mut asset = listed;
        asset.attributes.insert("looked".to_owned(), true.into());
        let warnings = state.described.lacking.iter();
        let warnings: Vec<Warning> = warnings.map(|name| Warning::denied(name, format!("lacks {name}"))).collect();
        if warnings.is_empty() {
            let told = state.described.attributes.get(&asset.external_id).cloned().unwrap_or_default();
            asset.attributes.extend(told);
        }
        Ok(Detailed { asset, warnings })
    }
}
