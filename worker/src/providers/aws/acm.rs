//! Certificate Manager: what certificates there are. [`Certificates`] can list and describe them; no method of it could
//! fetch a certificate's body or export its key.

use super::{
    error::Call,
    facts::{Attributes, instant, instant_text},
};
use crate::providers::http::Outbound;
use aws_config::{Region, SdkConfig};
use aws_sdk_acm::{
    Client,
    config::retry::RetryConfig,
    operation::{
        describe_certificate::{DescribeCertificateError, DescribeCertificateOutput},
        list_certificates::{ListCertificatesError, ListCertificatesOutput},
    },
    types::{CertificateDetail, CertificateStatus, CertificateSummary, DomainValidation, Filters, KeyAlgorithm},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use keywright_jobs::{
    domain::inventory::{AssetType, CertificateFacts, Detailed, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use serde_json::{Map, Value};

pub(super) const KIND: &str = "aws.acm.certificate";
const VAULT: &str = "acm";
/// The most that ListCertificates gives at once.
const PAGE_SIZE: i32 = 1000;

#[derive(Clone)]
pub(super) struct Certificates {
    client: Client,
    region: String,
}

impl Certificates {
    pub fn new(config: &SdkConfig, region: &str) -> Self {
        let once = aws_sdk_acm::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(once), region: region.to_owned() }
    }

    /// One page, of every key type and status. Tags are not in the list.
    pub async fn page(&self, outbound: &Outbound, token: Option<&str>) -> Result<Page, ProviderError> {
        let call = Call { action: "acm:ListCertificates", region: &self.region, paged: token.is_some() };
        let output = outbound
            .call(&call.name(), || async { self.list_page(token).await.map_err(|error| call.failed(&error)) })
            .await?;
        let mut page = Page { next: call.next(output.next_token, token)?, ..Page::default() };
        for summary in output.certificate_summary_list.unwrap_or_default() {
            match observe(summary) {
                Ok(asset) => page.assets.push(asset),
                Err(warning) => page.warnings.push(warning),
            }
        }
        Ok(page)
    }

    /// Who uses the certificate, how its renewal and validation stand, and the dates that the list may withhold.
    pub async fn complete(&self, outbound: &Outbound, listed: Observed) -> Result<Detailed, ProviderError> {
        let call = Call { action: "acm:DescribeCertificate", region: &self.region, paged: false };
        let output = outbound
            .call(&call.name(), || async {
                self.describe(&listed.external_id).await.map_err(|error| call.failed(&error))
            })
            .await?;
        let Some(detail) = output.certificate else {
            return Err(call.unexpected_reply("nothing was told of the certificate"));
        };
        Ok(Detailed { asset: completed(listed, detail), warnings: Vec::new() })
    }

    async fn list_page(
        &self,
        token: Option<&str>,
    ) -> Result<ListCertificatesOutput, SdkError<ListCertificatesError, HttpResponse>> {
        // without this filter ACM lists RSA keys of 1024 and 2048 bits only
        let every_key = KeyAlgorithm::values().iter().map(|&name| KeyAlgorithm::from(name)).collect();
        self.client
            .list_certificates()
            .includes(Filters::builder().set_key_types(Some(every_key)).build())
            .max_items(PAGE_SIZE)
            .set_next_token(token.map(str::to_owned))
            .send()
            .await
    }

    async fn describe(
        &self,
        arn: &str,
    ) -> Result<DescribeCertificateOutput, SdkError<DescribeCertificateError, HttpResponse>> {
        self.client.describe_certificate().certificate_arn(arn).send().await
    }
}

fn observe(summary: CertificateSummary) -> Result<Observed, Warning> {
    let name = summary.domain_name.clone().unwrap_or_default();
    let Some(external_id) = summary.certificate_arn.clone().filter(|arn| !arn.is_empty()) else {
        return Err(Warning::new(name, "unexpected_reply", "Certificate Manager listed a certificate without an ARN."));
    };
    let attributes = attributes(&summary);
    let latest = [summary.issued_at, summary.imported_at, summary.revoked_at];
    Ok(Observed {
        asset_type: AssetType::Certificate,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name,
        external_id,
        enabled: summary.status.as_ref().map(|status| *status == CertificateStatus::Issued),
        created_at: instant(summary.created_at.as_ref()),
        expires_at: instant(summary.not_after.as_ref()),
        not_before: instant(summary.not_before.as_ref()),
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: latest.iter().filter_map(|at| instant(at.as_ref())).max(),
        tags: Default::default(),
        attributes,
        certificate: certificate(summary.key_algorithm, summary.subject_alternative_name_summaries.unwrap_or_default()),
        relations: Vec::new(),
    })
}

/// `None` when not even the key's algorithm is known.
fn certificate(key_algorithm: Option<KeyAlgorithm>, sans: Vec<String>) -> Option<CertificateFacts> {
    let (key_algorithm, key_bits) = key(key_algorithm?.as_str());
    Some(CertificateFacts {
        subject: None,
        issuer: None,
        serial: None,
        sans,
        key_algorithm,
        key_bits,
        signature_algorithm: None,
        fingerprint_sha256: None,
        self_signed: None,
        is_ca: None,
    })
}

fn completed(mut asset: Observed, detail: CertificateDetail) -> Observed {
    let told = details(&detail);
    asset.attributes.extend(told);
    asset.expires_at = asset.expires_at.or(instant(detail.not_after.as_ref()));
    asset.not_before = asset.not_before.or(instant(detail.not_before.as_ref()));
    asset.created_at = asset.created_at.or(instant(detail.created_at.as_ref()));
    let facts = asset.certificate.take().or_else(|| certificate(detail.key_algorithm, Vec::new()));
    asset.certificate = facts.map(|facts| CertificateFacts {
        subject: detail.subject,
        issuer: detail.issuer,
        serial: detail.serial.map(|serial| serial.replace(':', "").to_ascii_lowercase()),
        // the list tells the first hundred
        sans: detail.subject_alternative_names.filter(|names| !names.is_empty()).unwrap_or(facts.sans),
        signature_algorithm: detail.signature_algorithm,
        ..facts
    });
    let mut users = detail.in_use_by.unwrap_or_default();
    users.sort();
    asset.relations = users.into_iter().map(|to| Related { relation: Relation::UsedBy, to }).collect();
    asset
}

fn details(detail: &CertificateDetail) -> Map<String, Value> {
    let renewal = detail.renewal_summary.as_ref();
    let validation = detail.domain_validation_options.as_deref().filter(|all| !all.is_empty());
    let mut attributes = Attributes::default();
    attributes.put("renewalStatus", renewal.map(|renewal| renewal.renewal_status.as_str()));
    attributes.put(
        "renewalStatusReason",
        renewal.and_then(|renewal| renewal.renewal_status_reason.as_ref()).map(|word| word.as_str()),
    );
    attributes.put("domainValidation", validation.map(|all| all.iter().map(validated).collect::<Vec<Value>>()));
    attributes.put("failureReason", detail.failure_reason.as_ref().map(|word| word.as_str()));
    attributes.put("revocationReason", detail.revocation_reason.as_ref().map(|word| word.as_str()));
    attributes.put("certificateAuthorityArn", detail.certificate_authority_arn.as_deref());
    attributes.into_map()
}

fn validated(domain: &DomainValidation) -> Value {
    let mut attributes = Attributes::default();
    attributes.put("domain", Some(domain.domain_name.as_str()));
    attributes.put("method", domain.validation_method.as_ref().map(|word| word.as_str()));
    attributes.put("status", domain.validation_status.as_ref().map(|word| word.as_str()));
    attributes.into_map().into()
}

/// `RSA_2048` → (`RSA`, 2048); `EC_secp384r1` → (`EC`, 384). A name that is not of this form is kept whole.
fn key(name: &str) -> (String, Option<u32>) {
    let Some((family, size)) = name.split_once(['_', '-']) else { return (name.to_owned(), None) };
    let digits: String = size.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    match digits.parse() {
        Ok(bits) if matches!(family, "RSA" | "EC") => (family.to_owned(), Some(bits)),
        _ => (name.to_owned(), None),
    }
}

fn attributes(summary: &CertificateSummary) -> Map<String, Value> {
    let mut attributes = Attributes::default();
    attributes.put("status", summary.status.as_ref().map(|word| word.as_str()));
    attributes.put("type", summary.r#type.as_ref().map(|word| word.as_str()));
    attributes.put("keyAlgorithm", summary.key_algorithm.as_ref().map(|word| word.as_str()));
    attributes.put("keyUsages", words(summary.key_usages.as_deref()));
    attributes.put("extendedKeyUsages", words(summary.extended_key_usages.as_deref()));
    attributes.put("hasAdditionalSubjectAlternativeNames", summary.has_additional_subject_alternative_names);
    attributes.put("exportOption", summary.export_option.as_ref().map(|word| word.as_str()));
    attributes.put("exported", summary.exported);
    attributes.put("inUse", summary.in_use);
    attributes.put("renewalEligibility", summary.renewal_eligibility.as_ref().map(|word| word.as_str()));
    attributes.put("managedBy", summary.managed_by.as_ref().map(|word| word.as_str()));
    attributes.put("certificateKeyPairOrigin", summary.certificate_key_pair_origin.as_ref().map(|word| word.as_str()));
    attributes.put("issuedAt", instant_text(summary.issued_at.as_ref()));
    attributes.put("importedAt", instant_text(summary.imported_at.as_ref()));
    attributes.put("revokedAt", instant_text(summary.revoked_at.as_ref()));
    attributes.into_map()
}

fn words<T: AsRef<str>>(list: Option<&[T]>) -> Option<Vec<String>> {
    list.filter(|list| !list.is_empty()).map(|list| list.iter().map(|word| word.as_ref().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_acm::{
        primitives::DateTime,
        types::{CertificateType, DomainStatus, ValidationMethod},
    };
    use serde_json::json;

    const ARN: &str = "arn:aws:acm:eu-west-1:123456789012:certificate/1b2f";

    fn summary() -> aws_sdk_acm::types::builders::CertificateSummaryBuilder {
        CertificateSummary::builder().certificate_arn(ARN).domain_name("example.com").status(CertificateStatus::Issued)
    }

    #[test]
    fn a_listed_certificate_keeps_everything_that_the_list_tells() {
        let asset = observe(
            summary()
                .r#type(CertificateType::Imported)
                .key_algorithm(KeyAlgorithm::EcSecp384r1)
                .subject_alternative_name_summaries("example.com")
                .in_use(true)
                .not_before(DateTime::from_secs(1_700_000_000))
                .not_after(DateTime::from_secs(1_800_000_000))
                .created_at(DateTime::from_secs(1_600_000_000))
                .imported_at(DateTime::from_secs(1_700_000_001))
                .build(),
        )
        .unwrap();
        assert_eq!((asset.name.as_str(), asset.external_id.as_str(), asset.enabled), ("example.com", ARN, Some(true)));
        assert_eq!(asset.expires_at.unwrap().timestamp(), 1_800_000_000);
        assert_eq!(asset.last_changed_at.unwrap().timestamp(), 1_700_000_001);
        let facts = asset.certificate.unwrap();
        assert_eq!((facts.key_algorithm.as_str(), facts.key_bits), ("EC", Some(384)));
        assert_eq!((facts.sans, facts.issuer), (vec!["example.com".to_owned()], None));
        assert_eq!(
            Value::from(asset.attributes),
            json!({
                "status": "ISSUED", "type": "IMPORTED", "keyAlgorithm": "EC_secp384r1", "inUse": true,
                "importedAt": "2023-11-14T22:13:21+00:00",
            })
        );
    }

    #[test]
    fn a_closer_look_tells_who_uses_it_and_fills_what_the_list_withheld() {
        let validation = DomainValidation::builder()
            .domain_name("example.com")
            .validation_method(ValidationMethod::Dns)
            .validation_status(DomainStatus::Success)
            .build()
            .unwrap();
        let detail = CertificateDetail::builder()
            .not_after(DateTime::from_secs(1_800_000_000))
            .key_algorithm(KeyAlgorithm::Rsa2048)
            .serial("0A:bC:01")
            .issuer("Amazon")
            .subject_alternative_names("example.com")
            .subject_alternative_names("www.example.com")
            .domain_validation_options(validation)
            .in_use_by("arn:b")
            .in_use_by("arn:a")
            .build();
        let asset = completed(observe(summary().build()).unwrap(), detail);
        assert_eq!(asset.expires_at.unwrap().timestamp(), 1_800_000_000);
        let facts = asset.certificate.unwrap();
        assert_eq!(
            (facts.serial.as_deref(), facts.issuer.as_deref(), facts.key_bits, facts.sans.len()),
            (Some("0abc01"), Some("Amazon"), Some(2048), 2)
        );
        let used_by = |to: &str| Related { relation: Relation::UsedBy, to: to.to_owned() };
        assert_eq!(asset.relations, [used_by("arn:a"), used_by("arn:b")]);
        assert_eq!(
            asset.attributes["domainValidation"],
            json!([{"domain": "example.com", "method": "DNS", "status": "SUCCESS"}])
        );
    }

    #[test]
    fn keys_are_named_by_family_and_size() {
        assert_eq!(key("RSA_4096"), ("RSA".to_owned(), Some(4096)));
        assert_eq!(key("EC_prime256v1"), ("EC".to_owned(), Some(256)));
        assert_eq!(key("ML_DSA_65"), ("ML_DSA_65".to_owned(), None));
        assert_eq!(key("odd"), ("odd".to_owned(), None));
    }

    #[test]
    fn a_summary_without_an_arn_is_told_not_dropped() {
        assert_eq!(observe(CertificateSummary::builder().build()).unwrap_err().code, "unexpected_reply");
    }
}
