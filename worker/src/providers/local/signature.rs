//! Whether a certificate's signature was made with its own key.

use super::{algorithms, text::dotted};
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use x509_parser::{certificate::X509Certificate, signature_algorithm::RsaSsaPssParams};

/// What became of checking a certificate against its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSignature {
    Verified,
    Invalid,
    /// An algorithm or a key size that is not supported here.
    Unverified,
}

impl OwnSignature {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Invalid => "invalid",
            Self::Unverified => "unverified",
        }
    }
}

/// Checks the signature of `certificate` with the key that is in it.
pub fn check(certificate: &X509Certificate<'_>) -> OwnSignature {
    let Some(algorithm) = algorithm(certificate) else { return OwnSignature::Unverified };
    let key = &certificate.public_key().subject_public_key.data;
    let Ok(key) = ParsedPublicKey::new(algorithm, key.as_ref()) else { return OwnSignature::Unverified };
    match key.verify_sig(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data) {
        Ok(()) => OwnSignature::Verified,
        Err(_) => OwnSignature::Invalid,
    }
}

fn algorithm(certificate: &X509Certificate<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let signed_with = dotted(&certificate.signature_algorithm.algorithm);
    let curve = curve(certificate);
    Some(match (algorithms::signature(&signed_with)?, curve) {
        ("sha1WithRSAEncryption", _) => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        ("sha256WithRSAEncryption", _) => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        ("sha384WithRSAEncryption", _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("sha512WithRSAEncryption", _) => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        ("RSASSA-PSS", _) => return pss(certificate),
        ("ecdsa-with-SHA1", Some("P-256")) => &signature::ECDSA_P256_SHA1_ASN1,
        ("ecdsa-with-SHA256", Some("P-256")) => &signature::ECDSA_P256_SHA256_ASN1,
        ("ecdsa-with-SHA384", Some("P-256")) => &signature::ECDSA_P256_SHA384_ASN1,
        ("ecdsa-with-SHA512", Some("P-256")) => &signature::ECDSA_P256_SHA512_ASN1,
        ("ecdsa-with-SHA256", Some("P-384")) => &signature::ECDSA_P384_SHA256_ASN1,
        ("ecdsa-with-SHA384", Some("P-384")) => &signature::ECDSA_P384_SHA384_ASN1,
        ("ecdsa-with-SHA512", Some("P-384")) => &signature::ECDSA_P384_SHA512_ASN1,
        ("ecdsa-with-SHA256", Some("P-521")) => &signature::ECDSA_P521_SHA256_ASN1,
        ("ecdsa-with-SHA384", Some("P-521")) => &signature::ECDSA_P521_SHA384_ASN1,
        ("ecdsa-with-SHA512", Some("P-521")) => &signature::ECDSA_P521_SHA512_ASN1,
        ("Ed25519", _) => &signature::ED25519,
        _ => return None,
    })
}

/// Only the usual parameters: mask generation with the same hash, salt as long as the hash.
fn pss(certificate: &X509Certificate<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    match (pss_hash(certificate)?, pss_salt_length(certificate)?) {
        ("SHA256", 32) => Some(&signature::RSA_PSS_2048_8192_SHA256),
        ("SHA384", 48) => Some(&signature::RSA_PSS_2048_8192_SHA384),
        ("SHA512", 64) => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// The hash that an RSASSA-PSS signature names in its parameters.
pub fn pss_hash(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let parameters = certificate.signature_algorithm.parameters.as_ref()?;
    let parameters = RsaSsaPssParams::try_from(parameters).ok()?;
    algorithms::hash(&dotted(parameters.hash_algorithm_oid()))
}

fn pss_salt_length(certificate: &X509Certificate<'_>) -> Option<u32> {
    let parameters = certificate.signature_algorithm.parameters.as_ref()?;
    Some(RsaSsaPssParams::try_from(parameters).ok()?.salt_length())
}

/// The name of the curve of an EC key with named parameters.
pub fn curve(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let parameters = certificate.public_key().algorithm.parameters.as_ref()?;
    algorithms::curve(&dotted(&parameters.as_oid().ok()?)).map(|(name, _)| name)
}
