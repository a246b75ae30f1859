//! A licence as it is issued: a JWT (RFC 7519) signed with Ed25519.
//!
//! ```text
//! {"alg":"EdDSA","typ":"licence+jwt"}
//! {"tier":"PRO","sub":"Example Ltd","iat":1764000000,"nbf":1764000000,"exp":1795536000,"limits":{"subscriptions":50}}
//! ```
//!
//! What it says about its own verification is not believed: one algorithm, one type, the configured key (RFC 8725).

use crate::{
    domain::licence::{Extra, Terms, Tier},
    setup::config::LicenceKey,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

/// The type of token: a key that signs other tokens too does not make licences of them.
const TYPE: &str = "licence+jwt";

const NO_LICENCE: &str = "holds no licence: a JWT with `typ` `licence+jwt` and `alg` `EdDSA`";
const OTHER_KEY: &str = "is not signed with the private half of the key that is configured";
const CLAIMS: &str = "does not say what a licence says: `tier` STARTER, PRO or ENTERPRISE, and its times in seconds";

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    tier: Tier,
    sub: Option<String>,
    iat: Option<i64>,
    nbf: Option<i64>,
    exp: Option<i64>,
    #[serde(default)]
    limits: Extra,
}

/// What a licence says, if the key's holder has signed it. Its times are judged later.
///
/// # Errors
/// What is wrong, as the end of a sentence about the file; nothing of its content.
pub(super) fn verify(key: &LicenceKey, text: &str) -> Result<Terms, &'static str> {
    let token: String = text.split_whitespace().collect();
    let (header, _) = token.split_once('.').ok_or(NO_LICENCE)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| NO_LICENCE)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| NO_LICENCE)?;
    if header.alg != "EdDSA" || !header.typ.eq_ignore_ascii_case(TYPE) || header.crit.is_some() {
        return Err(NO_LICENCE);
    }
    let (signed, _) = token.rsplit_once('.').ok_or(NO_LICENCE)?;
    let fingerprint = hex::encode(digest(&SHA256, signed.as_bytes()));
    let key = DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(key.bytes())).map_err(|_| OTHER_KEY)?;
    let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation()).map_err(|_| OTHER_KEY)?.claims;
    let claims: Claims = serde_json::from_value(claims).map_err(|_| CLAIMS)?;
    Ok(Terms {
        fingerprint,
        tier: claims.tier,
        licensee: claims.sub,
        issued_at: time(claims.iat)?,
        not_before: time(claims.nbf)?,
        expires_at: time(claims.exp)?,
        extra: claims.limits,
    })
}

fn time(seconds: Option<i64>) -> Result<Option<DateTime<Utc>>, &'static str> {
    // up to the year 9999, which both databases can keep
    const LAST: i64 = 253_402_300_799;
    let within = |seconds: i64| DateTime::from_timestamp(seconds, 0).filter(|_| (0..=LAST).contains(&seconds));
    seconds.map(|seconds| within(seconds).ok_or(CLAIMS)).transpose()
}

/// Times are judged by the database's clock, not by the library's.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    struct Issuer(Ed25519KeyPair);

    impl Issuer {
        fn new() -> Self {
            Self(Ed25519KeyPair::generate().unwrap())
        }

        fn key(&self) -> LicenceKey {
            STANDARD.encode(self.0.public_key().as_ref()).parse().unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).as_ref());
            format!("{signed}.{signature}")
        }
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "licence+jwt"})
    }

    fn claims() -> Value {
        json!({"tier": "PRO", "sub": "Example Ltd", "iat": 1_764_000_000, "exp": 1_795_536_000, "limits": {"subscriptions": 50}})
    }

    #[test]
    fn what_the_issuer_signed_is_read() {
        let issuer = Issuer::new();
        let token = issuer.sign(&header(), &claims());
        // as an editor leaves it
        let (one, two) = token.split_at(60);
        let terms = verify(&issuer.key(), &format!(" {one}\n{two}\n")).unwrap();
        assert_eq!((terms.tier, terms.licensee.as_deref()), (Tier::Pro, Some("Example Ltd")));
        assert_eq!(terms.expires_at, DateTime::from_timestamp(1_795_536_000, 0));
        assert_eq!(terms.extra, Extra { subscriptions: Some(50), ..Extra::default() });
        let least = verify(&issuer.key(), &issuer.sign(&header(), &json!({"tier": "STARTER"}))).unwrap();
        assert_eq!((least.expires_at, least.issued_at, least.not_before), (None, None, None));
    }

    #[test]
    fn nothing_else_is() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let good = issuer.sign(&header(), &claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let enterprise = URL_SAFE_NO_PAD.encode(json!({"tier": "ENTERPRISE"}).to_string());
        let (head, _) = signed.split_once('.').unwrap();
        let with = |header: Value| issuer.sign(&header, &claims());
        let saying = |claims: Value| issuer.sign(&header(), &claims);
        for (what, token, reason) in [
            ("nothing", String::new(), NO_LICENCE),
            ("text", "hello.world".to_owned(), NO_LICENCE),
            ("another's", other.sign(&header(), &claims()), OTHER_KEY),
            ("other claims", format!("{head}.{enterprise}.{signature}"), OTHER_KEY),
            ("no signature", format!("{signed}."), OTHER_KEY),
            ("two signatures", format!("{good}.{signature}"), OTHER_KEY),
            ("none", with(json!({"alg": "none", "typ": "licence+jwt"})), NO_LICENCE),
            ("HS256", with(json!({"alg": "HS256", "typ": "licence+jwt"})), NO_LICENCE),
            ("an access token", with(json!({"alg": "EdDSA", "typ": "at+jwt"})), NO_LICENCE),
            ("no type", with(json!({"alg": "EdDSA"})), NO_LICENCE),
            ("crit", with(json!({"alg": "EdDSA", "typ": "licence+jwt", "crit": ["x"]})), NO_LICENCE),
            ("no tier", saying(json!({"sub": "x"})), CLAIMS),
            ("another tier", saying(json!({"tier": "GOLD"})), CLAIMS),
            ("a time in text", saying(json!({"tier": "PRO", "exp": "2030"})), CLAIMS),
            ("a time beyond all", saying(json!({"tier": "PRO", "exp": i64::MAX})), CLAIMS),
            ("a limit in text", saying(json!({"tier": "PRO", "limits": {"users": "all"}})), CLAIMS),
        ] {
            assert_eq!(verify(&issuer.key(), &token), Err(reason), "{what}");
        }
    }
}
