use super::{super::fixtures::*, *};
use chrono::Datelike;
use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd};

fn reading(der: &[u8]) -> Reading {
    read(der).unwrap().0
}

fn codes(reading: &Reading) -> Vec<&'static str> {
    reading.oddities.iter().map(|oddity| oddity.code).collect()
}

#[test]
fn tells_the_facts_of_an_ordinary_certificate() {
    let mut params = params("a.example");
    params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
    params.subject_alt_names.push(SanType::IpAddress("::1".parse().unwrap()));
    params.subject_alt_names.push(SanType::Rfc822Name("a@example.com".try_into().unwrap()));
    params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().unwrap()));
    params.serial_number = Some(SerialNumber::from_slice(&[0, 0xab, 1]));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Other(vec![1, 2, 3])];
    let made = self_signed(params);
    let reading = reading(&made.der);
    assert_eq!(reading.facts.subject.as_deref().unwrap(), "O=Acme\\, Inc.,CN=a.example");
    assert_eq!(reading.facts.issuer, reading.facts.subject);
    assert_eq!(reading.facts.serial.as_deref(), Some("ab01"));
    assert_eq!(reading.facts.sans, ["a.example", "::1", "a@example.com", "spiffe://a/b"]);
    assert_eq!((reading.facts.key_algorithm.as_str(), reading.facts.key_bits), ("EC", Some(256)));
    assert_eq!(reading.facts.signature_algorithm.as_deref(), Some("ecdsa-with-SHA256"));
    assert_eq!((reading.facts.self_signed, reading.facts.is_ca), (Some(true), Some(false)));
    assert_eq!(reading.short_name.as_deref(), Some("a.example"));
    assert_eq!(reading.not_before.unwrap().to_rfc3339(), "2020-01-01T00:00:00+00:00");
    assert_eq!(reading.attributes["weak"], json!([]));
    assert_eq!(reading.attributes["curve"], json!("P-256"));
    assert_eq!(reading.attributes["selfSignature"], json!("verified"));
    assert_eq!(reading.attributes["keyUsage"], json!(["digitalSignature", "keyEncipherment"]));
    assert_eq!(reading.attributes["extendedKeyUsage"], json!(["serverAuth", "1.2.3"]));
    assert_eq!(reading.fingerprint.len(), 64);
    assert!(reading.oddities.is_empty());
}

#[test]
fn tells_authorities_and_what_they_sign_apart() {
    let authority = Authority::new("Root");
    let root = reading(&authority.made.der);
    let leaf = reading(&authority.sign(params("leaf.example")).der);
    assert_eq!((root.facts.self_signed, root.facts.is_ca), (Some(true), Some(true)));
    assert_eq!((leaf.facts.self_signed, leaf.facts.is_ca), (Some(false), Some(false)));
    assert_eq!(leaf.issuer_der, root.subject_der);
    assert!(!leaf.attributes.contains_key("selfSignature"));
}

#[test]
fn names_algorithms_and_weaknesses() {
    let cases = [
        (
            data!("md5-rsa1024.der"),
            "RSA",
            Some(1024),
            "md5WithRSAEncryption",
            json!(["md5_signature", "rsa_below_2048"]),
            "unverified",
        ),
        (data!("sha1-rsa2048.der"), "RSA", Some(2048), "sha1WithRSAEncryption", json!(["sha1_signature"]), "verified"),
        (data!("pss-sha256.der"), "RSA", Some(2048), "RSASSA-PSS", json!([]), "verified"),
        (data!("ec-p192.der"), "EC", Some(192), "ecdsa-with-SHA256", json!(["ec_below_224"]), "unverified"),
        (data!("ed448.der"), "Ed448", Some(456), "Ed448", json!([]), "unverified"),
        (&ed25519("e.example"), "Ed25519", Some(256), "Ed25519", json!([]), "verified"),
    ];
    for (der, key, bits, signature, weak, own) in cases {
        let reading = reading(der);
        assert_eq!((reading.facts.key_algorithm.as_str(), reading.facts.key_bits), (key, bits));
        assert_eq!(reading.facts.signature_algorithm.as_deref(), Some(signature));
        assert_eq!(reading.attributes["weak"], weak, "{signature}");
        assert_eq!(reading.attributes["selfSignature"], json!(own), "{signature}");
    }
    assert_eq!(reading(data!("pss-sha256.der")).attributes["signatureHash"], json!("SHA256"));
}

#[test]
fn an_unknown_algorithm_keeps_its_number() {
    let der = patched(&ed25519("x.example"), &[0x06, 0x03, 0x2b, 0x65, 0x70], &[0x06, 0x03, 0x2b, 0x65, 0x02]);
    let reading = reading(&der);
    assert_eq!(reading.facts.key_algorithm, "1.3.101.2");
    assert_eq!(reading.facts.signature_algorithm.as_deref(), Some("1.3.101.2"));
    assert_eq!(reading.facts.key_bits, None);
    assert_eq!(reading.facts.self_signed, Some(true));
    assert_eq!(reading.attributes["selfSignature"], json!("unverified"));
}

#[test]
fn a_certificate_that_only_claims_to_be_its_own_issuer_is_not_self_signed() {
    let der = named("claim.example").der;
    let mut altered = der.clone();
    *altered.last_mut().unwrap() ^= 1;
    let reading = reading(&altered);
    assert_eq!(reading.facts.self_signed, Some(false));
    assert_eq!(reading.attributes["selfSignature"], json!("invalid"));
}

#[test]
fn absurd_dates_survive() {
    let dated = |from: i32, to: i32| {
        let mut params = params("old.example");
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 12, 31);
        reading(&self_signed(params).der)
    };
    let old = dated(1952, 1960);
    assert_eq!((old.not_before.unwrap().year(), old.not_after.unwrap().year()), (1952, 1960));
    let far = dated(2020, 9999);
    assert_eq!(far.not_after.unwrap().year(), 9999);
    assert!(far.oddities.is_empty());
    let inverted = dated(2030, 2020);
    assert!(inverted.not_after < inverted.not_before);
    assert_eq!(codes(&inverted), ["invalid_date"]);
}

#[test]
fn a_date_that_is_none_is_told_as_such() {
    let der = patched(&named("x.example").der, b"200101000000Z", b"201301000000Z");
    assert_eq!(read(&der).unwrap_err(), CertificateError::InvalidDate);
}

#[test]
fn a_hundred_kilobytes_of_names_are_cut() {
    let mut many = params("many.example");
    many.subject_alt_names = (0..4_000)
        .map(|number| SanType::DnsName(format!("host-{number:06}.many.example").try_into().unwrap()))
        .collect();
    let many = reading(&self_signed(many).der);
    assert_eq!(many.facts.sans.len(), SANS_LIMIT);
    assert_eq!(many.attributes["sansTotal"], json!(4_000));
    assert_eq!(codes(&many), ["sans_truncated"]);

    let mut long = params("long.example");
    long.subject_alt_names = (0..100)
        .map(|number| SanType::URI(format!("urn:{number}:{}", "x".repeat(1_100)).try_into().unwrap()))
        .collect();
    let long = reading(&self_signed(long).der);
    assert!(long.facts.sans.iter().map(String::len).sum::<usize>() <= SANS_BYTES_LIMIT);
    assert!(long.facts.sans.len() < 100 && long.facts.sans.len() > 50);
}

#[test]
fn names_are_escaped_and_capped() {
    let mut params = params("x");
    params.distinguished_name.push(DnType::CommonName, format!("bank.example\0.evil.example{}", "y".repeat(10_000)));
    let reading = reading(&self_signed(params).der);
    let subject = reading.facts.subject.unwrap();
    assert!(subject.starts_with("CN=bank.example\\00.evil"));
    assert!(subject.len() < NAME_LIMIT + 8);
    assert!(!reading.short_name.unwrap().contains('\0'));
}

#[test]
fn what_follows_is_counted_and_garbage_is_refused() {
    let der = named("x.example").der;
    let longer = [der.as_slice(), b"more"].concat();
    assert_eq!(read(&longer).unwrap().1, 4);
    for end in 0..der.len() {
        assert_eq!(read(&der[..end]).unwrap_err().code(), "invalid_der");
    }
}

#[test]
fn no_single_altered_byte_breaks_the_reader() {
    let der = named("x.example").der;
    for position in 0..der.len() {
        for value in [0x00, 0x30, 0x7f, 0x80, 0xff] {
            let mut altered = der.clone();
            altered[position] = value;
            let _ = read(&altered);
        }
    }
}
