//! A secret of Secret Manager as a store: its versions are numbered, and the last is what readers of `latest` get
//! (<https://cloud.google.com/secret-manager/docs/reference/rest>). It can hold no version that is not current, and nothing is compared
//! when one is added: whoever adds looks before and after.

use super::super::{
    error::{Call, NOT_FOUND},
    rest::{Rest, body},
};
use crate::providers::rotated::Versions;
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use crc::{CRC_32_ISCSI, Crc};
use keywright_jobs::{
    domain::google::GLOBAL,
    provider::{
        ProviderError,
        rotation::{Entry, Held, SecretStore, SecretValue},
    },
};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// CRC32C, as the API compares values by.
const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// An attempt may take 30 s, and as much again what is under way in the network.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Secret {
    rest: Arc<Rest>,
    region: String,
    /// `projects/P/secrets/S`, or with a location.
    name: String,
}

#[derive(Deserialize)]
struct Version {
    name: String,
}

#[derive(Deserialize)]
struct Accessed {
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default)]
    data: String,
    data_crc32c: Option<String>,
}

impl Secret {
    pub fn new(rest: Arc<Rest>, entry: &Entry) -> Self {
        Self { rest, region: entry.region.clone(), name: entry.external_id.clone() }
    }

    fn call(&self, permission: &'static str) -> Call<'_> {
        Call { permission, subject: &self.name, paged: false, missing: NOT_FOUND }
    }

    fn host(&self) -> String {
        match self.region.as_str() {
            GLOBAL => "secretmanager.googleapis.com".to_owned(),
            region => format!("secretmanager.{region}.rep.googleapis.com"),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        method: Method,
        rest: &str,
        sent: Option<&Value>,
    ) -> Result<T, ProviderError> {
        let address = self.rest.address(&self.host(), &format!("v1/{}{rest}", self.name), &call)?;
        let headers = self.rest.headers().await?;
        let attempt = async || {
            let mut request = self.rest.client.request(method.clone(), address.clone()).headers(headers.clone());
            if let Some(sent) = sent {
                request = request.json(sent);
            }
            let response = request.send().await.map_err(|error| call.unsent(&error))?;
            body(response, &call).await.map(Zeroizing::new)
        };
        let read = match sent {
            // what only reads may be asked again
            None => self.rest.outbound.call(&call.name(), attempt).await?,
            Some(_) => self.rest.outbound.once(&call.name(), attempt()).await?,
        };
        serde_json::from_slice(&read)
            .map_err(|_| call.unexpected_reply("Google Cloud sent an answer that cannot be read"))
    }

    /// `enable`, `disable` or `destroy` of a version.
    async fn change(&self, call: Call<'_>, version: &str, change: &str) -> Result<(), ProviderError> {
        let (path, sent) = (format!("/versions/{version}:{change}"), json!({}));
        self.send::<Version>(call, Method::POST, &path, Some(&sent)).await.map(|_| ())
    }
}

/// The number at the end of a version's name.
fn number(version: &Version) -> String {
    version.name.rsplit('/').next().unwrap_or_default().to_owned()
}

#[async_trait]
impl SecretStore for Secret {
    fn stages(&self) -> bool {
        false
    }

    async fn held(&self) -> Result<Held, ProviderError> {
        let call = self.call("secretmanager.versions.get");
        let latest = self.send::<Version>(call, Method::GET, "/versions/latest", None).await;
        let current = match latest {
            Ok(version) => Some(number(&version)),
            Err(ProviderError::Rejected { code, .. }) if code == NOT_FOUND => None,
            Err(error) => return Err(error),
        };
        Ok(Held { current, pending: None })
    }

    async fn read(&self, version: &str) -> Result<SecretValue, ProviderError> {
        let call = self.call("secretmanager.versions.access");
        let read: Accessed = self.send(call, Method::GET, &format!("/versions/{version}:access"), None).await?;
        let bytes = STANDARD.decode(Zeroizing::new(read.payload.data).as_bytes());
        let value = SecretValue::new(bytes.map_err(|_| call.unexpected_reply("the value is not in base64"))?);
        let sum = CASTAGNOLI.checksum(value.expose()).to_string();
        if read.payload.data_crc32c.is_some_and(|told| told != sum) {
            return Err(call.unexpected_reply("the value does not have the checksum that was told"));
        }
        Ok(value)
    }

    async fn stage(&self, _: &str, _: &SecretValue) -> Result<String, ProviderError> {
        Err(not_here("Secret Manager has no version that is not current"))
    }

    async fn unstage(&self, _: &str) -> Result<(), ProviderError> {
        Err(not_here("Secret Manager has no version that is not current"))
    }

    async fn promote(&self, _: Option<&str>, _: Option<&str>, value: &SecretValue) -> Result<String, ProviderError> {
        let sum = CASTAGNOLI.checksum(value.expose()).to_string();
        let data = Zeroizing::new(STANDARD.encode(value.expose()));
        let sent = json!({"payload": {"data": data.as_str(), "dataCrc32c": sum}});
        let call = self.call("secretmanager.versions.add");
        self.send::<Version>(call, Method::POST, ":addVersion", Some(&sent)).await.map(|version| number(&version))
    }
}

#[async_trait]
impl Versions for Secret {
    fn switches(&self) -> bool {
        true
    }

    fn call_deadline(&self) -> Duration {
        CALL_DEADLINE
    }

    async fn set_active(&self, version: &str, active: bool) -> Result<(), ProviderError> {
        let (permission, change) = if active {
            ("secretmanager.versions.enable", "enable")
        } else {
            ("secretmanager.versions.disable", "disable")
        };
        self.change(self.call(permission), version, change).await
    }

    async fn destroy(&self, version: &str) -> Result<(), ProviderError> {
        self.change(self.call("secretmanager.versions.destroy"), version, "destroy").await
    }
}

/// Nothing that the machine asks for.
fn not_here(detail: &str) -> ProviderError {
    ProviderError::Rejected { code: "not_here".to_owned(), detail: detail.to_owned() }
}
