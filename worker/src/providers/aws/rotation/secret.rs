//! A secret of Secrets Manager as a store: `AWSPENDING` is staged, `AWSCURRENT` is what readers get.
//!
//! The token of a request becomes the name of the version, and the same token with the same value is the same version
//! (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html>). Moving `AWSCURRENT` names the version
//! that it is taken from, so that of two who move it one is refused.

use super::super::{Account, error::Call};
use crate::providers::http::Outbound;
use async_trait::async_trait;
use aws_config::Region;
use aws_sdk_secretsmanager::{Client, config::retry::RetryConfig, primitives::Blob};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use keywright_jobs::provider::{
    NOT_FOUND, ProviderError,
    rotation::{Entry, Held, MOVED, SecretStore, SecretValue},
};
use std::sync::Arc;

const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";

pub(super) struct Secret {
    client: Client,
    outbound: Arc<Outbound>,
    region: String,
    arn: String,
}

impl Secret {
    pub fn new(account: &Account, entry: &Entry) -> Self {
        let once = aws_sdk_secretsmanager::config::Builder::from(&account.config)
            .region(Region::new(entry.region.clone()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self {
            client: Client::from_conf(once),
            outbound: Arc::clone(&account.outbound),
            region: entry.region.clone(),
            arn: entry.external_id.clone(),
        }
    }

    fn call(&self, action: &'static str) -> Call<'_> {
        Call { action, region: &self.region, paged: false }
    }

    /// Moves a label to or from versions.
    async fn label(&self, label: &str, to: Option<&str>, from: Option<&str>) -> Result<(), ProviderError> {
        let call = self.call("secretsmanager:UpdateSecretVersionStage");
        let request = self
            .client
            .update_secret_version_stage()
            .secret_id(&self.arn)
            .version_stage(label)
            .set_move_to_version_id(to.map(str::to_owned))
            .set_remove_from_version_id(from.map(str::to_owned));
        let send = async {
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => {
                    // the one that it should be taken from does not have it
                    let not_there = error.code().is_some_and(|code| code.starts_with("InvalidParameter"));
                    if not_there { Err(moved(&call)) } else { Err(call.failed(&error)) }
                }
            }
        };
        self.outbound.once(&call.name(), send).await
    }
}

fn moved(call: &Call<'_>) -> ProviderError {
    let detail = format!("{} in {}: the label is not where it was expected", call.action, call.region);
    ProviderError::Rejected { code: MOVED.to_owned(), detail }
}

#[async_trait]
impl SecretStore for Secret {
    fn stages(&self) -> bool {
        true
    }

    async fn held(&self) -> Result<Held, ProviderError> {
        let call = self.call("secretsmanager:DescribeSecret");
        let told = self
            .outbound
            .call(&call.name(), || async {
                let asked = self.client.describe_secret().secret_id(&self.arn);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let versions = told.version_ids_to_stages.unwrap_or_default();
        let with = |label: &str| {
            let mut labelled = versions.iter().filter(|(_, labels)| labels.iter().any(|one| one == label));
            labelled.next().map(|(version, _)| version.clone())
        };
        let current = with(CURRENT);
        // what is current already waits for nothing
        Ok(Held { pending: with(PENDING).filter(|pending| Some(pending) != current.as_ref()), current })
    }

    async fn read(&self, version: &str) -> Result<SecretValue, ProviderError> {
        let call = self.call("secretsmanager:GetSecretValue");
        let told = self
            .outbound
            .call(&call.name(), || async {
                let asked = self.client.get_secret_value().secret_id(&self.arn).version_id(version);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let bytes = told.secret_string.map(String::into_bytes).or_else(|| told.secret_binary.map(Blob::into_inner));
        bytes.map(SecretValue::new).ok_or_else(|| call.unexpected_reply("the version has no value"))
    }

    async fn stage(&self, token: &str, value: &SecretValue) -> Result<String, ProviderError> {
        let call = self.call("secretsmanager:PutSecretValue");
        let request =
            self.client.put_secret_value().secret_id(&self.arn).client_request_token(token).version_stages(PENDING);
        let request = match std::str::from_utf8(value.expose()) {
            Ok(text) => request.secret_string(text),
            Err(_) => request.secret_binary(Blob::new(value.expose())),
        };
        let send = async { request.send().await.map_err(|error| call.failed(&error)) };
        let told = self.outbound.once(&call.name(), send).await?;
        Ok(told.version_id.unwrap_or_else(|| token.to_owned()))
    }

    async fn unstage(&self, version: &str) -> Result<(), ProviderError> {
        match self.label(PENDING, None, Some(version)).await {
            Err(ProviderError::Rejected { code, detail }) if code == MOVED => {
                Err(ProviderError::Rejected { code: NOT_FOUND.to_owned(), detail })
            }
            done => done,
        }
    }

    async fn promote(
        &self,
        expected: Option<&str>,
        version: Option<&str>,
        _: &SecretValue,
    ) -> Result<String, ProviderError> {
        let version = version.unwrap_or_default();
        self.label(CURRENT, Some(version), expected).await?;
        // on the version that is current it is harmless, and gone with the next one that is staged
        if let Err(error) = self.label(PENDING, None, Some(version)).await {
            tracing::debug!(%error, "the pending label stays on what is current now");
        }
        Ok(version.to_owned())
    }
}
