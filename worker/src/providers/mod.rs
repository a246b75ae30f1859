//! The clouds, one folder each, and the one place that dispatches between them.

pub mod aws;
pub mod egress;
pub mod http;
pub mod local;
pub mod memory;

use async_trait::async_trait;
use aws::Aws;
use keywright_jobs::{
    domain::inventory::ProviderKind,
    provider::{Connection, Gate, ProviderError, Providers, Target},
    setup::config::Config,
};
use std::sync::Arc;

/// The clouds that this program can reach.
pub struct Clouds {
    aws: Aws,
}

impl Clouds {
    /// # Errors
    /// When the addresses that users may reach cannot be read from the configuration.
    pub fn new(_config: &Config) -> anyhow::Result<Self> {
        Ok(Self { aws: Aws::new(Arc::new(|_| Err("user-entered endpoints cannot be reached yet".to_owned()))) })
    }
}

#[async_trait]
impl Providers for Clouds {
    async fn connect(&self, target: &Target, gate: Gate) -> Result<Connection, ProviderError> {
        match target.provider {
            ProviderKind::Aws => self.aws.connect(target, gate).await,
            ProviderKind::Local | ProviderKind::Gcp | ProviderKind::Azure => Err(ProviderError::Rejected {
                code: "provider_unsupported".to_owned(),
                detail: format!("this version cannot look at {}", target.provider),
            }),
        }
    }
}
