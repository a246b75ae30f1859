//! This machine, and what it can reach over TLS: certificates in files and directories, and at `host:port` endpoints.
//!
//! It needs no credential. Of private keys it only tells that they are there, and how their files are protected.
//!
//! A page is one unit of work: the gate is passed before each page of files and before each connection.

mod algorithms;
mod assets;
mod certificate;
mod contents;
mod der_shape;
mod file_scope;
mod files;
#[cfg(test)]
mod fixtures;
mod java_keystore;
mod pem_blocks;
mod pkcs12;
mod pkcs7;
mod settings;
mod signature;
mod text;
mod tls;
mod walk;

pub use file_scope::Limits;
pub use settings::Environment;
pub use tls::{Anchors, Patience};

use super::egress::EgressGuard;
use assets::{FILE_CERTIFICATE, FILE_KEY, TLS_CERTIFICATE};
use async_trait::async_trait;
use contents::Wanted;
use file_scope::FileScope;
use keywright_jobs::{
    domain::inventory::{Page, ScopeId},
    provider::{Connection, Gate, Inventory, ProviderError},
    setup::clock::Clock,
};
use serde_json::Value;
use settings::Settings;
use std::sync::Arc;
use tls::TlsScope;

/// The region of every local scope.
pub const REGION: &str = "local";

/// What the provider needs of the process around it.
#[derive(Clone)]
pub struct Surroundings {
    /// Looks up the variables that `pkcs12Passwords` refers to.
    pub environment: Environment,
    /// The time at which certificate chains are judged.
    pub clock: Clock,
    /// The authorities by which certificate chains are judged.
    pub anchors: Anchors,
    /// How long an endpoint may take.
    pub patience: Patience,
    pub limits: Limits,
}

impl Surroundings {
    /// Usual limits, and the trust store of this machine.
    pub fn new(environment: Environment, clock: Clock) -> Self {
        Self {
            environment,
            clock,
            anchors: Anchors::of_this_machine(),
            patience: Patience::default(),
            limits: Limits::default(),
        }
    }
}

/// The inventory of a local target.
pub struct Local {
    gate: Gate,
    certificates: FileScope,
    keys: FileScope,
    endpoints: TlsScope,
    kinds: Vec<&'static str>,
}

impl Local {
    /// Opens a local target: reads its settings, touches nothing yet.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] with `invalid_settings`.
    pub fn connect(
        settings: &Value,
        gate: Gate,
        egress: Arc<EgressGuard>,
        surroundings: Surroundings,
    ) -> Result<Connection, ProviderError> {
        let settings = Settings::read(settings, surroundings.environment.clone())?;
        let mut kinds = Vec::new();
        if !settings.paths.is_empty() {
            kinds.extend([FILE_CERTIFICATE, FILE_KEY]);
        }
        if !settings.endpoints.is_empty() {
            kinds.push(TLS_CERTIFICATE);
        }
        let endpoints = settings.endpoints.clone();
        let files = |wanted| FileScope::new(settings.clone(), wanted, surroundings.limits);
        let inventory = Self {
            certificates: files(Wanted::Certificates),
            keys: files(Wanted::Keys),
            endpoints: TlsScope::new(&endpoints, gate.clone(), egress, &surroundings),
            gate,
            kinds,
        };
        Ok(Connection::new(inventory))
    }
}

#[async_trait]
impl Inventory for Local {
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        let scope = |kind: &&str| ScopeId { region: REGION.to_owned(), kind: (*kind).to_owned() };
        Ok(self.kinds.iter().map(scope).collect())
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        match self.kinds.iter().find(|kind| scope.region == REGION && **kind == scope.kind) {
            Some(&TLS_CERTIFICATE) => self.endpoints.list(page).await,
            Some(&FILE_KEY) => {
                self.gate.pass().await?;
                self.keys.list(page).await
            }
            Some(_) => {
                self.gate.pass().await?;
                self.certificates.list(page).await
            }
            None => Err(ProviderError::Rejected {
                code: "unknown_scope".to_owned(),
                detail: format!("the local target has no scope {} in {}", scope.kind, scope.region),
            }),
        }
    }
}
