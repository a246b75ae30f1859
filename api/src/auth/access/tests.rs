//! The attack table: what must not pass for an access token.

use super::*;
use crate::auth::{opaque, testing};
use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn signed(pair: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    signed_text(pair, &encode(header), &encode(claims))
}

fn signed_text(pair: &Ed25519KeyPair, header: &str, claims: &str) -> String {
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// `base` with these members set; `null` takes a member away.
fn with(base: &Value, changes: Value) -> Value {
    let mut changed = base.as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            changed.remove(name)
        } else {
            changed.insert(name.clone(), value.clone())
        };
    }
    Value::Object(changed)
}

#[tokio::test]
async fn only_our_own_tokens_in_their_time_are_accepted() {
    let keys = testing::signing_keys().await;
    let pair = Ed25519KeyPair::from_pkcs8(keys.signer.as_bytes()).unwrap();
    let stranger = Ed25519KeyPair::generate().unwrap();
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let (user, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.kid});
    let claims = json!({"iss": "keywright", "aud": "keywright-api", "sub": user, "sid": session, "jti": Uuid::from_u128(3),
        "exp": now.timestamp() + 900, "nbf": now.timestamp(), "iat": now.timestamp()});
    let valid = signed(&pair, &header, &claims);
    assert_eq!(verify(&keys, &valid, now), Ok((user, session)), "the control");

    let headed = |changes: Value| signed(&pair, &with(&header, changes), &claims);
    let claimed = |changes: Value| signed(&pair, &header, &with(&claims, changes));
    let unsigned = |alg: &str| format!("{}.{}.", encode(&with(&header, json!({"alg": alg}))), encode(&claims));
    let hmacked = |key: &[u8]| {
        let message = format!("{}.{}", encode(&with(&header, json!({"alg": "HS256"}))), encode(&claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let public = pair.public_key().as_ref();
    let x = URL_SAFE_NO_PAD.encode(stranger.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let refresh = opaque::generate(opaque::REFRESH_PREFIX).unwrap();
    let twice = format!(r#"{{"sub":"{user}",{}"#, &claims.to_string()[1..]);
    let attacks: Vec<(&str, String)> = vec![
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("empty signature", unsigned("EdDSA")),
        ("no signature part", message.to_owned()),
        ("four parts", format!("{valid}.{signature}")),
        ("HS256 with the public key", hmacked(public)),
        ("HS256 with the public key as text", hmacked(URL_SAFE_NO_PAD.encode(public).as_bytes())),
        ("signed, but called RS256", headed(json!({"alg": "RS256"}))),
        ("signed, but called HS256", headed(json!({"alg": "HS256"}))),
        ("unknown kid", headed(json!({"kid": "nobody"}))),
        ("no kid", headed(json!({"kid": null}))),
        ("kid is a path", headed(json!({"kid": "../../../../dev/null"}))),
        ("kid is SQL", headed(json!({"kid": "x' OR '1'='1' --"}))),
        ("kid is no text", headed(json!({"kid": ["a"]}))),
        ("another's key", signed(&stranger, &header, &claims)),
        ("embedded jwk", signed(&stranger, &with(&header, json!({"jwk": jwk})), &claims)),
        ("jku", signed(&stranger, &with(&header, json!({"jku": "https://evil.example/jwks"})), &claims)),
        ("x5u", headed(json!({"x5u": "https://evil.example/x"}))),
        ("jwk beside a good signature", headed(json!({"jwk": jwk}))),
        ("crit", headed(json!({"crit": ["exp"]}))),
        ("wrong typ", headed(json!({"typ": "JWT"}))),
        ("no typ", headed(json!({"typ": null}))),
        ("wrong aud", claimed(json!({"aud": "somebody-else"}))),
        ("aud among others", claimed(json!({"aud": ["keywright-api", "x"]}))),
        ("no aud", claimed(json!({"aud": null}))),
        ("wrong iss", claimed(json!({"iss": "https://evil.example"}))),
        ("no iss", claimed(json!({"iss": null}))),
        ("no exp", claimed(json!({"exp": null}))),
        ("exp is text", claimed(json!({"exp": "9999999999"}))),
        ("exp beyond time", claimed(json!({"exp": i64::MAX}))),
        ("future nbf", claimed(json!({"nbf": now.timestamp() + 60}))),
        ("future iat", claimed(json!({"iat": now.timestamp() + 60}))),
        ("no session", claimed(json!({"sid": null}))),
        ("sub is no id", claimed(json!({"sub": "admin"}))),
        ("more claims", claimed(json!({"role": "admin"}))),
        ("duplicate claims", signed_text(&pair, &encode(&header), &URL_SAFE_NO_PAD.encode(twice))),
        ("bad UTF-8", signed_text(&pair, &encode(&header), &URL_SAFE_NO_PAD.encode(b"{\"iss\":\"\xff\xfe\"}"))),
        ("claims are no object", signed(&pair, &header, &json!([1]))),
        ("a megabyte", claimed(json!({"jti": "x".repeat(1 << 20)}))),
        ("refresh token", refresh.expose_secret().to_owned()),
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("garbage", "Zm9v.YmFy.YmF6".to_owned()),
    ];
    for (attack, token) in attacks {
        let rejected = verify(&keys, &token, now).unwrap_err();
        assert!(matches!(rejected, Rejected::Invalid | Rejected::UnknownKey), "{attack}: {rejected:?}");
    }
    let expired = claimed(json!({"exp": now.timestamp()}));
    assert_eq!(verify(&keys, &expired, now), Err(Rejected::Expired));
    let forged = signed(&stranger, &header, &with(&claims, json!({"exp": now.timestamp()})));
    assert_eq!(verify(&keys, &forged, now), Err(Rejected::Invalid), "only what was ours can be expired");
}

#[tokio::test]
async fn every_flipped_character_breaks_a_token() {
    let keys = testing::signing_keys().await;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let (token, ends) = mint(&keys, Uuid::from_u128(1), Uuid::from_u128(2), now, now + TimeDelta::days(1)).unwrap();
    let token = token.expose_secret();
    assert_eq!(ends, now + LIFETIME);
    assert!(verify(&keys, token, now + TimeDelta::minutes(14)).is_ok());
    assert_eq!(verify(&keys, token, ends), Err(Rejected::Expired));
    assert_eq!(verify(&keys, token, now - TimeDelta::minutes(1)), Err(Rejected::Invalid));
    for at in 0..token.len() {
        let mut changed = token.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let rejected = verify(&keys, &changed, now);
        assert!(matches!(rejected, Err(Rejected::Invalid | Rejected::UnknownKey)), "character {at}: {rejected:?}");
    }
}

#[tokio::test]
async fn a_token_ends_with_its_session() {
    let keys = testing::signing_keys().await;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let session_ends = now + TimeDelta::minutes(5);
    let (_, ends) = mint(&keys, Uuid::from_u128(1), Uuid::from_u128(2), now, session_ends).unwrap();
    assert_eq!(ends, session_ends);
}
