//! The scope of TLS endpoints: which certificate is served where, and whether it should be believed.
//!
//! An asset is the *place*: its identifier is `host:port`, so that a renewed certificate is a change and not another asset.

mod endpoint;
mod legacy;
mod probe;
mod starttls;
mod trust;

pub use trust::Anchors;

use super::{
    Surroundings,
    assets::{TLS_CERTIFICATE, certificate},
    certificate::{self as x509, Reading},
    text::{printable, shortened},
};
use crate::providers::egress::EgressGuard;
use endpoint::Endpoint;
use futures::{StreamExt, stream};
use keywright_jobs::{
    domain::inventory::{Observed, Page, Warning},
    provider::{Gate, ProviderError},
    setup::clock::Clock,
};
use probe::{Failure, Probe, Served};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Endpoints that are asked at the same time.
const CONCURRENCY: usize = 16;
/// Endpoints per page.
const ENDPOINTS_PER_PAGE: usize = 64;
/// Certificates of a served chain that are told about.
const CHAIN_LIMIT: usize = 16;

/// How long an endpoint may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For resolving, connecting and the handshake together.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { total: Duration::from_secs(10) }
    }
}

/// The scope of all endpoints of a subscription.
pub struct TlsScope {
    /// In the order of the settings; an endpoint that cannot be read keeps its place and its text.
    endpoints: Vec<Result<Endpoint, String>>,
    probe: Probe,
    anchors: Anchors,
    clock: Clock,
}

impl TlsScope {
    pub fn new(endpoints: &[String], gate: Gate, egress: Arc<EgressGuard>, surroundings: &Surroundings) -> Self {
        let mut seen = HashSet::new();
        let read = endpoints.iter().map(|text| Endpoint::read(text).ok_or_else(|| text.clone()));
        Self {
            // the same place twice is one place, whatever is spoken there first
            endpoints: read.filter(|endpoint| seen.insert(place(endpoint))).collect(),
            probe: Probe { gate, egress, patience: surroundings.patience.total },
            anchors: surroundings.anchors.clone(),
            clock: surroundings.clock.clone(),
        }
    }

    /// One page of endpoints, in the order of the settings.
    ///
    /// # Errors
    /// [`ProviderError::Stopped`] from the gate, [`ProviderError::PageExpired`] for a token that is not ours. An endpoint that
    /// fails is a warning and never an error.
    pub async fn list(&self, token: Option<&str>) -> Result<Page, ProviderError> {
        let start = match token {
            None => 0,
            Some(token) => token.parse::<usize>().map_err(|_| ProviderError::PageExpired)?,
        };
        let end = start.saturating_add(ENDPOINTS_PER_PAGE).min(self.endpoints.len());
        let chosen = self.endpoints.get(start..end).ok_or(ProviderError::PageExpired)?;
        let questions: Vec<_> = chosen.iter().map(|endpoint| self.ask(endpoint)).collect();
        let mut answers = stream::iter(questions).buffered(CONCURRENCY);
        let mut page = Page { next: (end < self.endpoints.len()).then(|| end.to_string()), ..Page::default() };
        while let Some(answer) = answers.next().await {
            let (asset, warnings) = answer?;
            page.assets.extend(asset);
            page.warnings.extend(warnings);
        }
        Ok(page)
    }

    async fn ask(
        &self,
        endpoint: &Result<Endpoint, String>,
    ) -> Result<(Option<Observed>, Vec<Warning>), ProviderError> {
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint,
            Err(text) => {
                let detail = "an endpoint is written host:port or smtp://, imap:// or postgres://host:port, with an IPv6 address as [address]:port";
                return Ok((None, vec![Warning::new(printable(&shortened(text, 300)), "invalid_endpoint", detail)]));
            }
        };
        match self.probe.ask(endpoint).await {
            Ok(served) => Ok(self.describe(endpoint, &served).await),
            Err(Failure::Stopped(stopped)) => Err(stopped.into()),
            Err(Failure::Told { code, detail }) => Ok((None, vec![Warning::new(endpoint.to_string(), code, detail)])),
        }
    }

    async fn describe(&self, endpoint: &Endpoint, served: &Served) -> (Option<Observed>, Vec<Warning>) {
        let place = endpoint.to_string();
        let mut warnings = Vec::new();
        let Some(leaf) = served.chain.first() else {
            let detail = "the server presented no certificate";
            return (None, vec![Warning::new(place, "no_certificate", detail)]);
        };
        let reading = match x509::read(leaf) {
            Ok((reading, _)) => reading,
            Err(error) => return (None, vec![Warning::new(place, error.code(), error.to_string())]),
        };
        for oddity in &reading.oddities {
            warnings.push(Warning::new(place.clone(), oddity.code, oddity.detail.clone()));
        }
        let mut attributes = reading.attributes.clone();
        let verdict = trust::judge(&served.chain, &endpoint.name, &self.anchors.get().await, self.clock.now());
        attributes.insert("servedAt".into(), json!(place));
        attributes.insert("startTls".into(), json!(endpoint.opening.name()));
        attributes.insert("protocol".into(), json!(served.protocol));
        attributes.insert("cipherSuite".into(), json!(served.cipher_suite));
        attributes.insert("handshake".into(), json!(if served.complete { "complete" } else { "broken_off" }));
        attributes.insert("hostnameMatches".into(), json!(verdict.name_matches));
        attributes.insert("chainTrusted".into(), json!(verdict.trusted));
        attributes.insert("chainTrustReason".into(), json!(verdict.reason));
        attributes.insert("chain".into(), json!(self::chain(&served.chain)));
        let name = reading.short_name.clone().unwrap_or_else(|| endpoint.host.clone());
        (Some(certificate(TLS_CERTIFICATE, place.clone(), name, place, &reading, attributes)), warnings)
    }
}

fn place(endpoint: &Result<Endpoint, String>) -> String {
    endpoint.as_ref().map_or_else(String::clone, ToString::to_string)
}

/// The served certificates, the leaf first.
fn chain(served: &[CertificateDer<'_>]) -> Vec<Value> {
    let member = |der: &CertificateDer<'_>| match x509::read(der) {
        Ok((Reading { facts, fingerprint, not_after, .. }, _)) => json!({
            "subject": facts.subject,
            "issuer": facts.issuer,
            "fingerprintSha256": fingerprint,
            "notAfter": not_after.map(|moment| moment.to_rfc3339()),
            "selfSigned": facts.self_signed,
        }),
        Err(error) => json!({"fingerprintSha256": x509::fingerprint(der), "error": error.code()}),
    };
    served.iter().take(CHAIN_LIMIT).map(member).collect()
}

#[cfg(test)]
mod tests;
