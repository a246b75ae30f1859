//! What is rotated in a project: secrets. The one place here that reads and writes values.

mod secret;

use super::{rest::Rest, secretmanager};
use crate::providers::rotated::Texts;
use async_trait::async_trait;
use keywright_jobs::{
    domain::rotation::Method,
    provider::{
        ProviderError,
        rotation::{Entry, Parts, Rotations, UNSUPPORTED},
    },
};
use secret::Secret;
use std::sync::Arc;

pub(super) struct Rotating {
    pub rest: Arc<Rest>,
    pub project: String,
}

#[async_trait]
impl Rotations for Rotating {
    async fn open(&self, entry: &Entry, method: &Method, _: Option<&str>) -> Result<Parts, ProviderError> {
        let unsupported = || ProviderError::Rejected {
            code: UNSUPPORTED.to_owned(),
            detail: format!("{} is not rotated by {}", entry.kind, method.as_str()),
        };
        let Method::Generated { length, characters, json_key } = method else { return Err(unsupported()) };
        if entry.kind != secretmanager::KIND {
            return Err(unsupported());
        }
        let secret = Secret::new(Arc::clone(&self.rest), entry);
        let issuer = Texts {
            identity: format!("gcp:{}:{}", self.project, entry.external_id),
            versions: secret.clone(),
            length: *length,
            characters: *characters,
            json_key: json_key.clone(),
        };
        Ok(Parts { issuer: Box::new(issuer), store: Box::new(secret) })
    }
}
