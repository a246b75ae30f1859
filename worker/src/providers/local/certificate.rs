//! The facts of one X.509 certificate, read from its DER (RFC 5280). Pure.

use super::{
    algorithms,
    signature::{self, OwnSignature},
    text::{distinguished_name, dotted, general_name, head, short_name},
};
use chrono::{DateTime, Utc};
use keywright_jobs::domain::inventory::CertificateFacts;
use serde_json::{Map, Value, json};
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension},
    nom, parse_x509_certificate,
    public_key::PublicKey,
    time::ASN1Time,
};

/// Bytes of a subject's or issuer's text that are kept.
pub const NAME_LIMIT: usize = 4_096;
/// Subject alternative names that are kept.
pub const SANS_LIMIT: usize = 1_000;
/// Bytes of all kept subject alternative names together.
pub const SANS_BYTES_LIMIT: usize = 65_536;
/// Bytes of one subject alternative name that are kept.
pub const SAN_LIMIT: usize = 1_024;
/// Bytes of a serial number that are kept; RFC 5280 allows 20.
pub const SERIAL_LIMIT: usize = 64;

/// Why bytes are not a certificate that can be told about.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateError {
    #[error("this is not the DER of an X.509 certificate")]
    InvalidDer,
    #[error("the certificate holds a date that is not one")]
    InvalidDate,
}

impl CertificateError {
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidDer => "invalid_der",
            Self::InvalidDate => "invalid_date",
        }
    }
}

/// Something odd about a certificate that was read nevertheless: a stable code and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    pub code: &'static str,
    pub detail: String,
}

/// One certificate as it describes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub facts: CertificateFacts,
    /// Lower-case hex SHA-256 of the DER.
    pub fingerprint: String,
    /// The subject's common name, unit or organisation.
    pub short_name: Option<String>,
    pub not_before: Option<DateTime<Utc>>,
    pub not_after: Option<DateTime<Utc>>,
    /// `weak`, `keyUsage`, `extendedKeyUsage`, …
    pub attributes: Map<String, Value>,
    pub oddities: Vec<Oddity>,
    /// The names as encoded: a certificate is issued by another when its `issuer` is the other's `subject`.
    pub subject_der: Vec<u8>,
    pub issuer_der: Vec<u8>,
}

/// Reads the certificate at the start of `der`; also says how many bytes follow it.
///
/// # Errors
/// [`CertificateError`] when there is no certificate at the start.
pub fn read(der: &[u8]) -> Result<(Reading, usize), CertificateError> {
    let (rest, certificate) = parse_x509_certificate(der).map_err(refusal)?;
    let mut oddities = Vec::new();
    let mut attributes = Map::new();
    let key = key(&certificate);
    let signature_oid = dotted(&certificate.signature_algorithm.algorithm);
    let signature_name = algorithms::signature(&signature_oid).map_or(signature_oid, str::to_owned);
    let signature_hash = signature::pss_hash(&certificate).filter(|_| signature_name == "RSASSA-PSS");
    if let Some(hash) = signature_hash {
        attributes.insert("signatureHash".into(), json!(hash));
    }
    if let Some(curve) = key.curve {
        attributes.insert("curve".into(), json!(curve));
    }
    let sans = alternative_names(&certificate, &mut attributes, &mut oddities);
    usages(&certificate, &mut attributes);
    malformed_extensions(&certificate, &mut oddities);
    let (not_before, not_after) = validity(&certificate, &mut oddities);
    let own_name = certificate.issuer().as_raw() == certificate.subject().as_raw();
    let own_signature = own_name.then(|| signature::check(&certificate));
    if let Some(outcome) = own_signature {
        attributes.insert("selfSignature".into(), json!(outcome.as_str()));
    }
    // nobody relies on the signature of a trust anchor: it is trusted for being there (RFC 5280, 6.1)
    let issues = matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    let anchor = own_name && certificate.is_ca() && issues;
    let relied_on = if anchor { ("", None) } else { (signature_name.as_str(), signature_hash) };
    let weak = algorithms::weaknesses(&key.algorithm, key.bits, relied_on.0, relied_on.1);
    attributes.insert("weak".into(), json!(weak));
    let fingerprint = fingerprint(certificate.as_raw());
    let reading = Reading {
        facts: CertificateFacts {
            subject: Some(distinguished_name(certificate.subject(), NAME_LIMIT)),
            issuer: Some(distinguished_name(certificate.issuer(), NAME_LIMIT)),
            serial: Some(serial(certificate.raw_serial())),
            sans,
            key_algorithm: key.algorithm,
            key_bits: key.bits,
            signature_algorithm: Some(signature_name),
            fingerprint_sha256: Some(fingerprint.clone()),
            self_signed: Some(own_signature.is_some_and(|outcome| outcome != OwnSignature::Invalid)),
            is_ca: Some(is_ca(&certificate)),
        },
        fingerprint,
        short_name: short_name(certificate.subject(), 128),
        not_before,
        not_after,
        attributes,
        oddities,
        subject_der: certificate.subject().as_raw().to_vec(),
        issuer_der: certificate.issuer().as_raw().to_vec(),
    };
    Ok((reading, rest.len()))
}

/// Lower-case hex SHA-256 of `der`.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der))
}

fn refusal(error: nom::Err<X509Error>) -> CertificateError {
    match error {
        nom::Err::Error(X509Error::InvalidDate) | nom::Err::Failure(X509Error::InvalidDate) => {
            CertificateError::InvalidDate
        }
        _ => CertificateError::InvalidDer,
    }
}

struct Key {
    algorithm: String,
    bits: Option<u32>,
    curve: Option<&'static str>,
}

fn key(certificate: &X509Certificate<'_>) -> Key {
    let info = certificate.public_key();
    let oid = dotted(&info.algorithm.algorithm);
    let known = algorithms::key_algorithm(&oid);
    let curve = signature::curve(certificate);
    let bits = match info.parsed() {
        Ok(PublicKey::RSA(key)) => Some(significant_bits(key.modulus)),
        Ok(PublicKey::EC(_)) => curve_bits(certificate),
        Ok(PublicKey::DSA(_)) => None,
        // RFC 4055: an RSASSA-PSS key is encoded like an RSA key, which the parser does not look into
        _ if known.is_some_and(|known| known.name.starts_with("RSA")) => rsa_bits(&info.subject_public_key.data),
        _ => known.and_then(|known| known.bits),
    };
    Key { algorithm: known.map_or(oid, |known| known.name.to_owned()), bits, curve }
}

fn curve_bits(certificate: &X509Certificate<'_>) -> Option<u32> {
    let parameters = certificate.public_key().algorithm.parameters.as_ref()?;
    algorithms::curve(&dotted(&parameters.as_oid().ok()?)).map(|(_, bits)| bits)
}

fn rsa_bits(encoded: &[u8]) -> Option<u32> {
    use x509_parser::{prelude::FromDer, public_key::RSAPublicKey};
    RSAPublicKey::from_der(encoded).ok().map(|(_, key)| significant_bits(key.modulus))
}

/// The bits of a big-endian integer without its leading zeros.
fn significant_bits(integer: &[u8]) -> u32 {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    let digits = integer.get(zeros..).unwrap_or_default();
    let leading = digits.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(digits.len() * 8).unwrap_or(u32::MAX).saturating_sub(leading)
}

fn serial(raw: &[u8]) -> String {
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => raw,
    };
    hex::encode(head(digits, SERIAL_LIMIT))
}

fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    certificate.iter_extensions().any(
        |extension| matches!(extension.parsed_extension(), ParsedExtension::BasicConstraints(constraints) if constraints.ca),
    )
}

/// Both ends of the validity; a date outside of what can be represented is told and left out.
fn validity(
    certificate: &X509Certificate<'_>,
    oddities: &mut Vec<Oddity>,
) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let moment = |time: ASN1Time| DateTime::from_timestamp(time.timestamp(), 0);
    let (not_before, not_after) = (moment(certificate.validity().not_before), moment(certificate.validity().not_after));
    if not_after < not_before {
        let detail = "notAfter is earlier than notBefore: the certificate was never valid";
        oddities.push(Oddity { code: "invalid_date", detail: detail.to_owned() });
    }
    (not_before, not_after)
}

fn alternative_names(
    certificate: &X509Certificate<'_>,
    attributes: &mut Map<String, Value>,
    oddities: &mut Vec<Oddity>,
) -> Vec<String> {
    let names: Vec<&GeneralName<'_>> = certificate
        .iter_extensions()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    let mut kept = Vec::new();
    let mut bytes = 0;
    for name in names.iter().take(SANS_LIMIT) {
        let text = general_name(name, SAN_LIMIT);
        bytes += text.len();
        if bytes > SANS_BYTES_LIMIT {
            break;
        }
        kept.push(text);
    }
    if kept.len() < names.len() {
        attributes.insert("sansTotal".into(), json!(names.len()));
        let detail = format!("{} of {} subject alternative names are kept", kept.len(), names.len());
        oddities.push(Oddity { code: "sans_truncated", detail });
    }
    kept
}

fn usages(certificate: &X509Certificate<'_>, attributes: &mut Map<String, Value>) {
    for extension in certificate.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => {
                attributes.insert("keyUsage".into(), json!(key_usage(usage)));
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                attributes.insert("extendedKeyUsage".into(), json!(extended_key_usage(usage)));
            }
            _ => {}
        }
    }
}

/// The names of RFC 5280 section 4.2.1.3.
fn key_usage(usage: &KeyUsage) -> Vec<&'static str> {
    let flags = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

/// The names of RFC 5280 section 4.2.1.12; other purposes as dotted identifiers.
fn extended_key_usage(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let flags = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let named = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    named.chain(usage.other.iter().take(32).map(dotted)).collect()
}

fn malformed_extensions(certificate: &X509Certificate<'_>, oddities: &mut Vec<Oddity>) {
    let malformed: Vec<String> = certificate
        .iter_extensions()
        .filter(|extension| matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }))
        .take(8)
        .map(|extension| dotted(&extension.oid))
        .collect();
    if !malformed.is_empty() {
        let detail = format!("the content of extension {} cannot be read", malformed.join(", "));
        oddities.push(Oddity { code: "invalid_extension", detail });
    }
}

#[cfg(test)]
mod tests;
