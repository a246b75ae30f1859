//! What is rotated in an account: secrets, and access keys that secrets hold. The one place here that reads and writes values.
//!
//! Each call is sent once. A call that changes something and is not answered may have done it: that is told as such, and
//! [`keywright_jobs::domain::rotation`] finds out.

mod access_keys;
mod secret;

use super::{Account, secretsmanager};
use crate::providers::rotated::{Texts, Versions};
use access_keys::AccessKeys;
use async_trait::async_trait;
use keywright_jobs::{
    domain::rotation::Method,
    provider::{
        ProviderError,
        rotation::{CredentialIssuer, Entry, Parts, Rotations, UNSUPPORTED},
    },
};
use secret::Secret;
use std::{sync::Arc, time::Duration};

/// An attempt that was handed over longer ago than this has been answered or given up: the SDK's limit of 30 s for an attempt, and
/// as much again for what is under way in the network.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct Rotating(pub Arc<Account>);

#[async_trait]
impl Rotations for Rotating {
    async fn open(&self, entry: &Entry, method: &Method, owner: Option<&str>) -> Result<Parts, ProviderError> {
        let Self(account) = self;
        if entry.kind != secretsmanager::KIND {
            let detail = format!("{} is not rotated by {}", entry.kind, method.as_str());
            return Err(ProviderError::Rejected { code: UNSUPPORTED.to_owned(), detail });
        }
        let secret = Secret::new(account, entry);
        let issuer: Box<dyn CredentialIssuer> = match method {
            Method::Generated { length, characters, json_key } => Box::new(Texts {
                identity: format!("aws:{}:{}", account.id, entry.external_id),
                versions: Kept,
                length: *length,
                characters: *characters,
                json_key: json_key.clone(),
            }),
            Method::AwsAccessKey => Box::new(AccessKeys::new(Arc::clone(account), owner.unwrap_or_default())),
        };
        Ok(Parts { issuer, store: Box::new(secret) })
    }
}

/// The former version keeps its label `AWSPREVIOUS` until the next rotation: Secrets Manager has nothing to switch a version off.
struct Kept;

#[async_trait]
impl Versions for Kept {
    fn switches(&self) -> bool {
        false
    }

    fn call_deadline(&self) -> Duration {
        CALL_DEADLINE
    }

    async fn set_active(&self, _: &str, _: bool) -> Result<(), ProviderError> {
        Err(kept())
    }

    async fn destroy(&self, _: &str) -> Result<(), ProviderError> {
        Err(kept())
    }
}

fn kept() -> ProviderError {
    let detail = "Secrets Manager switches no version off".to_owned();
    ProviderError::Rejected { code: UNSUPPORTED.to_owned(), detail }
}
