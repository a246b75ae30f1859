//! Names of the algorithms that certificates speak of, by object identifier.
//!
//! Sources: RFC 3279, 4055, 5480, 5758, 8410, and RFC 9881, 9909, 9935 for the post-quantum ones (NIST CSOR arc
//! 2.16.840.1.101.3.4). An algorithm that is not listed keeps its dotted identifier.

/// What is known of a public key algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAlgorithm {
    pub oid: &'static str,
    pub name: &'static str,
    /// The key size when the algorithm alone determines it.
    pub bits: Option<u32>,
}

const fn key(oid: &'static str, name: &'static str, bits: Option<u32>) -> KeyAlgorithm {
    KeyAlgorithm { oid, name, bits }
}

const KEYS: [KeyAlgorithm; 28] = [
    key("1.2.840.113549.1.1.1", "RSA", None),
    key("1.2.840.113549.1.1.10", "RSASSA-PSS", None),
    key("1.2.840.113549.1.1.7", "RSAES-OAEP", None),
    key("1.2.840.10045.2.1", "EC", None),
    key("1.2.840.10040.4.1", "DSA", None),
    key("1.2.840.10046.2.1", "DH", None),
    key("1.3.101.110", "X25519", Some(256)),
    key("1.3.101.111", "X448", Some(448)),
    key("1.3.101.112", "Ed25519", Some(256)),
    key("1.3.101.113", "Ed448", Some(456)),
    key("2.16.840.1.101.3.4.3.17", "ML-DSA-44", None),
    key("2.16.840.1.101.3.4.3.18", "ML-DSA-65", None),
    key("2.16.840.1.101.3.4.3.19", "ML-DSA-87", None),
    key("2.16.840.1.101.3.4.3.20", "SLH-DSA-SHA2-128s", None),
    key("2.16.840.1.101.3.4.3.21", "SLH-DSA-SHA2-128f", None),
    key("2.16.840.1.101.3.4.3.22", "SLH-DSA-SHA2-192s", None),
    key("2.16.840.1.101.3.4.3.23", "SLH-DSA-SHA2-192f", None),
    key("2.16.840.1.101.3.4.3.24", "SLH-DSA-SHA2-256s", None),
    key("2.16.840.1.101.3.4.3.25", "SLH-DSA-SHA2-256f", None),
    key("2.16.840.1.101.3.4.3.26", "SLH-DSA-SHAKE-128s", None),
    key("2.16.840.1.101.3.4.3.27", "SLH-DSA-SHAKE-128f", None),
    key("2.16.840.1.101.3.4.3.28", "SLH-DSA-SHAKE-192s", None),
    key("2.16.840.1.101.3.4.3.29", "SLH-DSA-SHAKE-192f", None),
    key("2.16.840.1.101.3.4.3.30", "SLH-DSA-SHAKE-256s", None),
    key("2.16.840.1.101.3.4.3.31", "SLH-DSA-SHAKE-256f", None),
    key("2.16.840.1.101.3.4.4.1", "ML-KEM-512", None),
    key("2.16.840.1.101.3.4.4.2", "ML-KEM-768", None),
    key("2.16.840.1.101.3.4.4.3", "ML-KEM-1024", None),
];

/// Elliptic curves: identifier, name, bits of the field.
const CURVES: [(&str, &str, u32); 17] = [
    ("1.2.840.10045.3.1.1", "P-192", 192),
    ("1.3.132.0.33", "P-224", 224),
    ("1.2.840.10045.3.1.7", "P-256", 256),
    ("1.3.132.0.34", "P-384", 384),
    ("1.3.132.0.35", "P-521", 521),
    ("1.3.132.0.10", "secp256k1", 256),
    ("1.3.132.0.8", "secp160r1", 160),
    ("1.3.132.0.9", "secp160k1", 160),
    ("1.3.132.0.31", "secp192k1", 192),
    ("1.3.132.0.32", "secp224k1", 224),
    ("1.3.36.3.3.2.8.1.1.1", "brainpoolP160r1", 160),
    ("1.3.36.3.3.2.8.1.1.3", "brainpoolP192r1", 192),
    ("1.3.36.3.3.2.8.1.1.5", "brainpoolP224r1", 224),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1", 256),
    ("1.3.36.3.3.2.8.1.1.9", "brainpoolP320r1", 320),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1", 384),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1", 512),
];

/// Signature algorithms that are not at the same time key algorithms; the names are those of the RFCs that define them.
const SIGNATURES: [(&str, &str); 21] = [
    ("1.2.840.113549.1.1.2", "md2WithRSAEncryption"),
    ("1.2.840.113549.1.1.3", "md4WithRSAEncryption"),
    ("1.2.840.113549.1.1.4", "md5WithRSAEncryption"),
    ("1.2.840.113549.1.1.5", "sha1WithRSAEncryption"),
    ("1.3.14.3.2.29", "sha1WithRSAEncryption"),
    ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption"),
    ("1.2.840.113549.1.1.12", "sha384WithRSAEncryption"),
    ("1.2.840.113549.1.1.13", "sha512WithRSAEncryption"),
    ("1.2.840.113549.1.1.14", "sha224WithRSAEncryption"),
    ("1.2.840.10045.4.1", "ecdsa-with-SHA1"),
    ("1.2.840.10045.4.3.1", "ecdsa-with-SHA224"),
    ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384"),
    ("1.2.840.10045.4.3.4", "ecdsa-with-SHA512"),
    ("1.2.840.10040.4.3", "dsa-with-SHA1"),
    ("1.3.14.3.2.27", "dsa-with-SHA1"),
    ("2.16.840.1.101.3.4.3.1", "dsa-with-SHA224"),
    ("2.16.840.1.101.3.4.3.2", "dsa-with-SHA256"),
    ("2.16.840.1.101.3.4.3.3", "dsa-with-SHA384"),
    ("2.16.840.1.101.3.4.3.4", "dsa-with-SHA512"),
    ("1.2.156.10197.1.501", "SM2-with-SM3"),
];

/// Hash functions as parameters of RSASSA-PSS.
const HASHES: [(&str, &str); 5] = [
    ("1.3.14.3.2.26", "SHA1"),
    ("2.16.840.1.101.3.4.2.4", "SHA224"),
    ("2.16.840.1.101.3.4.2.1", "SHA256"),
    ("2.16.840.1.101.3.4.2.2", "SHA384"),
    ("2.16.840.1.101.3.4.2.3", "SHA512"),
];

pub fn key_algorithm(oid: &str) -> Option<KeyAlgorithm> {
    KEYS.into_iter().find(|known| known.oid == oid)
}

/// The curve's name and the bits of its field.
pub fn curve(oid: &str) -> Option<(&'static str, u32)> {
    CURVES.into_iter().find(|(known, ..)| *known == oid).map(|(_, name, bits)| (name, bits))
}

pub fn hash(oid: &str) -> Option<&'static str> {
    HASHES.into_iter().find(|(known, _)| *known == oid).map(|(_, name)| name)
}

/// The name of a signature algorithm; for the modern ones it is that of the key.
pub fn signature(oid: &str) -> Option<&'static str> {
    SIGNATURES
        .into_iter()
        .find(|(known, _)| *known == oid)
        .map(|(_, name)| name)
        .or_else(|| key_algorithm(oid).map(|known| known.name))
}

/// Why a certificate with this signature and key is weak today, as stable words; empty when nothing is known against it.
///
/// The limits are those of NIST SP 800-131A: no signature over MD2, MD4, MD5 or SHA-1, RSA from 2048 bits, curves from 224
/// bits, and by FIPS 186-5 no DSA.
pub fn weaknesses(key: &str, bits: Option<u32>, signature: &str, signature_hash: Option<&str>) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    let over = |hash: &str| {
        signature.to_ascii_lowercase().starts_with(&format!("{hash}with"))
            || signature.to_ascii_lowercase().ends_with(&format!("-with-{hash}"))
            || signature_hash.is_some_and(|found| found.eq_ignore_ascii_case(hash))
    };
    for (hash, reason) in
        [("md2", "md2_signature"), ("md4", "md4_signature"), ("md5", "md5_signature"), ("sha1", "sha1_signature")]
    {
        if over(hash) {
            reasons.push(reason);
        }
    }
    match (key, bits) {
        ("RSA" | "RSASSA-PSS" | "RSAES-OAEP", Some(bits)) if bits < 2048 => reasons.push("rsa_below_2048"),
        ("EC", Some(bits)) if bits < 224 => reasons.push("ec_below_224"),
        ("DSA", _) => reasons.push("dsa_key"),
        _ => {}
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_known_and_nothing_else() {
        assert_eq!(key_algorithm("1.2.840.113549.1.1.1").unwrap().name, "RSA");
        assert_eq!(key_algorithm("2.16.840.1.101.3.4.3.18").unwrap().name, "ML-DSA-65");
        assert_eq!(curve("1.3.132.0.35"), Some(("P-521", 521)));
        assert_eq!(signature("1.2.840.113549.1.1.11"), Some("sha256WithRSAEncryption"));
        assert_eq!(signature("1.3.101.112"), Some("Ed25519"));
        assert_eq!(signature("1.2.3.4"), None);
        assert_eq!(key_algorithm("1.2.3.4"), None);
    }

    type Case = (&'static str, Option<u32>, &'static str, Option<&'static str>, &'static [&'static str]);

    #[test]
    fn weakness_has_a_reason() {
        let cases: [Case; 9] = [
            ("RSA", Some(2048), "sha256WithRSAEncryption", None, &[]),
            ("RSA", Some(2047), "sha256WithRSAEncryption", None, &["rsa_below_2048"]),
            ("RSA", Some(1024), "md5WithRSAEncryption", None, &["md5_signature", "rsa_below_2048"]),
            ("RSA", Some(4096), "sha1WithRSAEncryption", None, &["sha1_signature"]),
            ("RSA", Some(4096), "RSASSA-PSS", Some("SHA1"), &["sha1_signature"]),
            ("EC", Some(192), "ecdsa-with-SHA1", None, &["sha1_signature", "ec_below_224"]),
            ("EC", Some(224), "ecdsa-with-SHA256", None, &[]),
            ("DSA", None, "dsa-with-SHA256", None, &["dsa_key"]),
            ("1.2.3.4", Some(8), "1.2.3.5", None, &[]),
        ];
        for (key, bits, signature, hash, expected) in cases {
            assert_eq!(weaknesses(key, bits, signature, hash), expected, "{key} {bits:?} {signature}");
        }
    }
}
