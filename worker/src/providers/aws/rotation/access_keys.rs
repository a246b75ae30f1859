//! Access keys of an IAM user: two at most, shown once, known everywhere only after some seconds.

use super::{
    super::{Account, error::Call, facts::instant, iam::REGION},
    CALL_DEADLINE,
};
use crate::providers::rotated;
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_iam::{Client, config::retry::RetryConfig, types::StatusType};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use keywright_jobs::provider::{
    ProviderError,
    rotation::{Abilities, CredentialIssuer, InUse, Listed, Prepared, QUOTA, SecretValue, UNKNOWN_CREDENTIAL},
};
use secrecy::ExposeSecret;
use std::{sync::Arc, time::Duration};

/// Two keys a user, active or not
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>).
const ABILITIES: Abilities = Abilities {
    ours: false,
    applies: true,
    overlaps: true,
    disables: true,
    deletes: true,
    tells_use: true,
    limit: Some(2),
    settle: Duration::from_secs(30),
    call_deadline: CALL_DEADLINE,
};

pub(super) struct AccessKeys {
    account: Arc<Account>,
    client: Client,
    user: String,
}

impl AccessKeys {
    pub fn new(account: Arc<Account>, user: &str) -> Self {
        let once = aws_sdk_iam::config::Builder::from(&account.config).retry_config(RetryConfig::disabled()).build();
        Self { account, client: Client::from_conf(once), user: user.to_owned() }
    }

    fn call(action: &'static str) -> Call<'static> {
        Call { action, region: REGION, paged: false }
    }

    /// Whose key it is, and when it was last used.
    async fn last_use(&self, id: &str) -> Result<(Option<String>, Option<DateTime<Utc>>), ProviderError> {
        let call = Self::call("iam:GetAccessKeyLastUsed");
        let told = self
            .account
            .outbound
            .call(&call.name(), || async {
                let asked = self.client.get_access_key_last_used().access_key_id(id);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let used = told.access_key_last_used.and_then(|used| used.last_used_date);
        Ok((told.user_name, instant(used.as_ref())))
    }
}

#[async_trait]
impl CredentialIssuer for AccessKeys {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    async fn identify(&self, _: &str, value: &SecretValue) -> Result<InUse, ProviderError> {
        let (id, _) = rotated::access_key(value)?;
        let (owner, _) = self.last_use(&id).await?;
        let owner = owner.filter(|owner| !owner.is_empty()).ok_or_else(|| ProviderError::Rejected {
            code: UNKNOWN_CREDENTIAL.to_owned(),
            detail: "the access key that the secret holds belongs to no user of this account".to_owned(),
        })?;
        Ok(InUse { identity: format!("aws:{}:user/{owner}", self.account.id), owner, credential: id })
    }

    fn prepare(&self, _: &str, _: &SecretValue) -> Result<Option<Prepared>, ProviderError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Listed>, ProviderError> {
        let call = Self::call("iam:ListAccessKeys");
        let told = self
            .account
            .outbound
            .call(&call.name(), || async {
                let asked = self.client.list_access_keys().user_name(&self.user);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let listed = told.access_key_metadata.into_iter().filter_map(|key| {
            let active = key.status == Some(StatusType::Active);
            key.access_key_id.map(|id| (id, active))
        });
        try_join_all(listed.map(async |(id, active)| {
            let (_, last_used_at) = self.last_use(&id).await?;
            Ok(Listed { id, active, last_used_at })
        }))
        .await
    }

    async fn mint(
        &self,
        _: Option<&Prepared>,
        in_use: Option<&SecretValue>,
    ) -> Result<(String, SecretValue), ProviderError> {
        let call = Self::call("iam:CreateAccessKey");
        let in_use = in_use.ok_or_else(|| call.unexpected_reply("the value in use is needed to make a new one"))?;
        // that a key can take the other's place is known before there is one
        rotated::access_key(in_use)?;
        let request = self.client.create_access_key().user_name(&self.user);
        let send = async {
            match request.send().await {
                Ok(made) => Ok(made),
                Err(error) if error.code() == Some("LimitExceeded") => Err(ProviderError::Rejected {
                    code: QUOTA.to_owned(),
                    detail: "the user has two access keys already".to_owned(),
                }),
                Err(error) => Err(call.failed(&error)),
            }
        };
        let made = self.account.outbound.once(&call.name(), send).await?;
        let key = made.access_key.ok_or_else(|| call.unexpected_reply("no key was shown"))?;
        let value = rotated::with_access_key(in_use, &key.access_key_id, &key.secret_access_key)?;
        drop(zeroize::Zeroizing::new(key.secret_access_key));
        Ok((key.access_key_id, value))
    }

    async fn prove(&self, value: &SecretValue) -> Result<bool, ProviderError> {
        let (id, secret) = rotated::access_key(value)?;
        let home = self.account.config.region().map(ToString::to_string).unwrap_or_default();
        let call = Call { action: "sts:GetCallerIdentity", region: &home, paged: false };
        let as_new = aws_sdk_sts::config::Builder::from(&self.account.config)
            .credentials_provider(Credentials::new(id, secret.expose_secret(), None, None, "keywright"))
            .retry_config(aws_sdk_sts::config::retry::RetryConfig::disabled())
            .build();
        let client = aws_sdk_sts::Client::from_conf(as_new);
        let send = async { client.get_caller_identity().send().await.map_err(|error| call.failed(&error)) };
        match self.account.outbound.once(&call.name(), send).await {
            Ok(told) => {
                // a key that works, and is this user's
                let arn = told.arn.unwrap_or_default();
                Ok(arn.rsplit_once('/').is_some_and(|(_, user)| user == self.user))
            }
            Err(ProviderError::Unauthenticated { .. } | ProviderError::Denied { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn last_used(&self, id: &str) -> Result<Option<DateTime<Utc>>, ProviderError> {
        self.last_use(id).await.map(|(_, used)| used)
    }

    async fn set_active(&self, id: &str, active: bool) -> Result<(), ProviderError> {
        let call = Self::call("iam:UpdateAccessKey");
        let status = if active { StatusType::Active } else { StatusType::Inactive };
        let request = self.client.update_access_key().user_name(&self.user).access_key_id(id).status(status);
        let send = async { request.send().await.map(|_| ()).map_err(|error| call.failed(&error)) };
        self.account.outbound.once(&call.name(), send).await
    }

    async fn delete(&self, id: &str) -> Result<(), ProviderError> {
        let call = Self::call("iam:DeleteAccessKey");
        let request = self.client.delete_access_key().user_name(&self.user).access_key_id(id);
        let send = async { request.send().await.map(|_| ()).map_err(|error| call.failed(&error)) };
        self.account.outbound.once(&call.name(), send).await
    }
}
