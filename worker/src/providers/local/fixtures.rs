//! Certificates for the tests of this provider.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    date_time_ymd,
};

/// A certificate and its key.
pub struct Made {
    pub der: Vec<u8>,
    pub pem: String,
    pub key: KeyPair,
}

/// Parameters for `name`, valid from 2020 to 2120.
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

pub fn self_signed(params: CertificateParams) -> Made {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let made = params.self_signed(&key).unwrap();
    Made { der: made.der().to_vec(), pem: made.pem(), key }
}

pub fn named(name: &str) -> Made {
    self_signed(params(name))
}

/// A self-signed certificate with an Ed25519 key.
pub fn ed25519(name: &str) -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    params(name).self_signed(&key).unwrap().der().to_vec()
}

/// An authority and what it signs.
pub struct Authority {
    pub made: Made,
    params: CertificateParams,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.subject_alt_names.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { made: self_signed(params.clone()), params }
    }

    pub fn sign(&self, params: CertificateParams) -> Made {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let made = params.signed_by(&key, &Issuer::from_params(&self.params, &self.made.key)).unwrap();
        Made { der: made.der().to_vec(), pem: made.pem(), key }
    }
}

/// `haystack` with every `from` replaced by `to` of the same length.
pub fn patched(haystack: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = haystack.to_vec();
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes.get(*at..at + from.len()).is_some_and(|part| part == from)).collect();
    assert!(!places.is_empty(), "nothing to patch");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// A checked-in file made with OpenSSL; see `tests-data/local/README.md`.
macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests-data/local/", $name)).as_slice()
    };
}
pub(super) use data;
