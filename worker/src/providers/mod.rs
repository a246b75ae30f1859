//! The clouds, one folder each, and the one place that dispatches between them.

pub mod aws;
pub mod conformance;
pub mod gcp;
pub mod http;
pub mod local;
pub mod memory;
pub mod rotated;

pub use keywright_jobs::egress;

use async_trait::async_trait;
use aws::Aws;
use egress::EgressGuard;
use gcp::Gcp;
use keywright_jobs::{
    domain::inventory::ProviderKind,
    provider::{Connection, Gate, ProviderError, Providers, StoredCredential, Target},
    setup::{
        clock::Clock,
        config::{self, Config},
    },
};
use local::{Local, Surroundings};
use std::sync::Arc;

/// The clouds that this program can reach.
pub struct Clouds {
    aws: Aws,
    gcp: Gcp,
    egress: Arc<EgressGuard>,
    surroundings: Surroundings,
}

impl Clouds {
    /// # Errors
    /// When the addresses that users may reach cannot be read from the configuration.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let egress = Arc::new(EgressGuard::new(&config.egress_allow));
        Ok(Self {
            aws: Aws::new(Arc::clone(&egress)),
            gcp: Gcp::new(Arc::clone(&egress), config.gcp_endpoint.clone()),
            egress,
            surroundings: Surroundings::new(Arc::new(config::variable), Clock::system()),
        })
    }
}

#[async_trait]
impl Providers for Clouds {
    async fn connect(
        &self,
        target: &Target,
        credential: Option<StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        match target.provider {
            ProviderKind::Aws => self.aws.connect(target, credential.as_ref(), gate).await,
            ProviderKind::Local => {
                Local::connect(&target.settings, gate, Arc::clone(&self.egress), self.surroundings.clone())
            }
            ProviderKind::Gcp => self.gcp.connect(target, credential.as_ref(), gate).await,
            ProviderKind::Azure => Err(ProviderError::Rejected {
                code: "provider_unsupported".to_owned(),
                detail: format!("this version cannot look at {}", target.provider),
            }),
        }
    }
}
