//! The way to Google's services: which questions there are, and how one is asked.
//!
//! A [`Question`] lists; there is none whose answer holds the value of a secret or a private key, and nothing else in this
//! folder holds an HTTP client but the exchange of one access token for another's, and what rotates.

use super::{
    auth::{SCOPE, Source, bearer},
    error::{Call, NOT_FOUND, PROJECT_NOT_FOUND, Refusal},
    facts::parts,
};
use crate::providers::{egress::EgressGuard, http::Outbound};
use keywright_jobs::{
    domain::google::{GLOBAL, is_own_host},
    provider::ProviderError,
};
use reqwest::{
    Client, Response,
    dns::{Name, Resolve, Resolving},
    header::HeaderMap,
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as Turns, time::Instant};
use url::Url;

/// An answer of this size is none of Google's.
const LARGEST: usize = 64 << 20;
/// How long an impersonated token is used, of the hour that it is valid.
const TOKEN_USED_FOR: Duration = Duration::from_secs(45 * 60);

/// How long one attempt may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the first byte sent to the last byte read.
    pub attempt: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), attempt: Duration::from_secs(30) }
    }
}

/// Everything that this folder asks about what exists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// The secrets of a project, in a region or the global ones.
    Secrets { project: &'a str, region: &'a str },
    /// The versions of a secret by its resource name: their states and times.
    Versions { secret: &'a str, region: &'a str },
    /// The service accounts of a project.
    ServiceAccounts { project: &'a str },
    /// The keys of a service account by its resource name: their dates, never their material.
    Keys { account: &'a str },
    /// The projects that this identity may see.
    Projects,
}

impl Question<'_> {
    fn permission(&self) -> &'static str {
        match self {
            Self::Secrets { .. } => "secretmanager.secrets.list",
            Self::Versions { .. } => "secretmanager.versions.list",
            Self::ServiceAccounts { .. } => "iam.serviceAccounts.list",
            Self::Keys { .. } => "iam.serviceAccountKeys.list",
            Self::Projects => "resourcemanager.projects.get",
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Secrets { region, .. } | Self::Versions { region, .. } if *region != GLOBAL => {
                format!("secretmanager.{region}.rep.googleapis.com")
            }
            Self::Secrets { .. } | Self::Versions { .. } => "secretmanager.googleapis.com".to_owned(),
            Self::ServiceAccounts { .. } | Self::Keys { .. } => "iam.googleapis.com".to_owned(),
            Self::Projects => "cloudresourcemanager.googleapis.com".to_owned(),
        }
    }

    /// `None` when a name that the provider gave is none of those that it may give.
    pub(super) fn path(&self) -> Option<String> {
        Some(match self {
            Self::Secrets { project, region } if *region == GLOBAL => format!("v1/projects/{project}/secrets"),
            Self::Secrets { project, region } => format!("v1/projects/{project}/locations/{region}/secrets"),
            Self::Versions { secret, .. } => {
                parts(secret, ["projects", "secrets"])
                    .map(|_| ())
                    .or_else(|| parts(secret, ["projects", "locations", "secrets"]).map(|_| ()))?;
                format!("v1/{secret}/versions")
            }
            Self::ServiceAccounts { project } => format!("v1/projects/{project}/serviceAccounts"),
            Self::Keys { account } => {
                parts(account, ["projects", "serviceAccounts"])?;
                format!("v1/{account}/keys")
            }
            Self::Projects => "v3/projects:search".to_owned(),
        })
    }

    fn subject(&self) -> String {
        match self {
            Self::Secrets { project, region } if *region == GLOBAL => format!("projects/{project}"),
            Self::Secrets { project, region } => format!("projects/{project}/locations/{region}"),
            Self::Versions { secret, .. } => (*secret).to_owned(),
            Self::ServiceAccounts { project } => format!("projects/{project}"),
            Self::Keys { account } => (*account).to_owned(),
            Self::Projects => "the visible projects".to_owned(),
        }
    }

    /// What may be given at once. Services of Google give at most so many, whatever they are asked for. Secrets could be
    /// 25,000; a page is also what one transaction writes and what a killed scan repeats.
    fn page_size(&self) -> Option<&'static str> {
        match self {
            Self::Secrets { .. } | Self::Versions { .. } => Some("1000"),
            Self::ServiceAccounts { .. } => Some("100"),
            Self::Keys { .. } => None,
            Self::Projects => Some("500"),
        }
    }

    fn call<'a>(&self, subject: &'a str, paged: bool) -> Call<'a> {
        let of_project = matches!(self, Self::Secrets { .. } | Self::ServiceAccounts { .. });
        let missing = if of_project { PROJECT_NOT_FOUND } else { NOT_FOUND };
        Call { permission: self.permission(), subject, paged, missing }
    }
}

/// How long an attempt may take, and of an address that a user entered, its port and whether it is Google's.
type Sort = (Duration, Option<(u16, bool)>);

/// The HTTP clients of this process: one for Google's addresses and the operator's, and one per port and guard for those that
/// users entered. Redirects lead nowhere.
pub(super) struct Clients {
    open: Mutex<HashMap<Sort, Client>>,
}

impl Clients {
    pub fn new() -> Self {
        Self { open: Mutex::default() }
    }

    /// `entered` is where a user's endpoint leads, and who watches over that.
    pub fn get(&self, timeouts: Timeouts, entered: Option<(&Url, &EgressGuard)>) -> Result<Client, ProviderError> {
        let place =
            entered.map(|(url, _)| (url.port_or_known_default().unwrap_or(443), url.domain().is_some_and(is_own_host)));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = open.get(&(timeouts.attempt, place)) {
            return Ok(client.clone());
        }
        let builder = Client::builder().connect_timeout(timeouts.connect).timeout(timeouts.attempt);
        let builder = builder.redirect(Policy::none()).user_agent("keywright");
        let builder = match (entered, place) {
            (Some((_, guard)), Some((port, _))) => {
                builder.no_proxy().dns_resolver(Arc::new(Guarded { guard: guard.clone(), port }))
            }
            _ => builder,
        };
        let client = builder.build().map_err(|_| ProviderError::Unavailable {
            detail: "the HTTP client for Google Cloud could not be made; the worker's trust store may be unreadable"
                .to_owned(),
        })?;
        open.insert((timeouts.attempt, place), client.clone());
        Ok(client)
    }
}

/// Asks where a name leads with every connection, because that may change. Literal addresses are not resolved: they were
/// checked when the project was opened.
struct Guarded {
    guard: EgressGuard,
    port: u16,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, port) = (self.guard.clone(), self.port);
        Box::pin(async move {
            let found = guard.resolve(name.as_str(), port).await?;
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

/// One opened project's way out.
pub(super) struct Rest {
    pub client: Client,
    pub outbound: Arc<Outbound>,
    pub source: Source,
    /// The service account to act as, and what it was last given.
    pub impersonate: Option<String>,
    pub impersonated: Turns<Option<(SecretString, Instant)>>,
    /// In place of every service's own address.
    pub base: Option<Url>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given<'a> {
    #[serde(borrow)]
    access_token: &'a str,
}

impl Rest {
    /// One page of the answer to a question.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        question: Question<'_>,
        page: Option<&str>,
    ) -> Result<T, ProviderError> {
        let subject = question.subject();
        let call = question.call(&subject, page.is_some());
        let path = question.path().ok_or_else(|| call.unexpected_reply("a name of Google Cloud has an odd form"))?;
        let mut address = self.address(&question.host(), &path, &call)?;
        let paging = [("pageSize", question.page_size()), ("pageToken", page)];
        let paging: Vec<_> = paging.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        if !paging.is_empty() {
            address.query_pairs_mut().extend_pairs(paging);
        }
        let headers = self.headers().await?;
        let body = self
            .outbound
            .call(&call.name(), || async {
                let sent = self.client.get(address.clone()).headers(headers.clone()).send().await;
                body(sent.map_err(|error| call.unsent(&error))?, &call).await
            })
            .await?;
        serde_json::from_slice(&body)
            .map_err(|_| call.unexpected_reply("Google Cloud sent an answer that cannot be read"))
    }

    /// Obtains what says whom requests come from.
    pub async fn log_in(&self) -> Result<(), ProviderError> {
        self.headers().await.map(drop)
    }

    pub fn address(&self, host: &str, path: &str, call: &Call<'_>) -> Result<Url, ProviderError> {
        let base = self.base.as_ref().map_or_else(|| format!("https://{host}"), ToString::to_string);
        let address = format!("{}/{path}", base.trim_end_matches('/'));
        Url::parse(&address).map_err(|_| call.unexpected_reply("the address of the service cannot be built"))
    }

    /// What says whom a request comes from.
    pub async fn headers(&self) -> Result<HeaderMap, ProviderError> {
        let own = self.outbound.call("google-cloud access token", || self.source.headers()).await?;
        let Some(account) = &self.impersonate else { return Ok(own) };
        let mut given = self.impersonated.lock().await;
        if let Some((token, until)) = given.as_ref()
            && Instant::now() < *until
        {
            return bearer(token.expose_secret());
        }
        let token = self.exchange(account, own).await?;
        let headers = bearer(token.expose_secret())?;
        *given = Some((token, Instant::now() + TOKEN_USED_FOR));
        Ok(headers)
    }

    async fn exchange(&self, account: &str, own: HeaderMap) -> Result<SecretString, ProviderError> {
        let call = Call {
            permission: "iam.serviceAccounts.getAccessToken",
            subject: account,
            paged: false,
            missing: NOT_FOUND,
        };
        let path = format!("v1/projects/-/serviceAccounts/{account}:generateAccessToken");
        let address = self.address("iamcredentials.googleapis.com", &path, &call)?;
        let wanted = json!({"scope": [SCOPE], "lifetime": "3600s"});
        let body = self
            .outbound
            .call(&call.name(), || async {
                let request = self.client.post(address.clone()).headers(own.clone()).json(&wanted);
                body(request.send().await.map_err(|error| call.unsent(&error))?, &call).await
            })
            .await?;
        let given: Given<'_> =
            serde_json::from_slice(&body).map_err(|_| call.unexpected_reply("Google Cloud sent no access token"))?;
        Ok(given.access_token.into())
    }
}

/// Reads a success to its end.
pub(super) async fn body(mut response: Response, call: &Call<'_>) -> Result<Vec<u8>, ProviderError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut read = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| call.unsent(&error))? {
        if read.len() + part.len() > LARGEST {
            return Err(call.unexpected_reply("the answer is larger than any of Google Cloud's"));
        }
        read.extend_from_slice(&part);
    }
    if status.is_success() { Ok(read) } else { Err(call.answered(&Refusal::new(status.as_u16(), &headers, &read))) }
}

#[cfg(test)]
mod tests {
    use super::Question;
    use keywright_jobs::domain::{inventory::ProviderKind, quotas};

    #[test]
    fn every_question_has_its_rate() {
        for question in [
            Question::Secrets { project: "acme", region: "global" },
            Question::Versions { secret: "projects/acme/secrets/one", region: "global" },
            Question::ServiceAccounts { project: "acme" },
            Question::Keys { account: "projects/acme/serviceAccounts/one" },
            Question::Projects,
        ] {
            let name = question.call("acme", false).name();
            assert!(quotas::Counted::of(ProviderKind::Gcp, &name).known.is_some(), "{name}");
        }
    }
}
