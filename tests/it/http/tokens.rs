//! What must not pass for an access token, sent to a process that logs everything: 401 each, and nothing of it in the log.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use keywright_entities::{clock, session, signing_key};
use keywright_jobs::setup::{
    config::MasterKeySource,
    ids,
    sealing::{Sealing, places},
};
use keywright_tests::{
    database::TestDatabase,
    instance::{Instance, MASTER_KEY},
    on_both_databases,
};
use sea_orm::EntityTrait;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

on_both_databases!(nothing_but_our_own_tokens_in_their_time_is_accepted);

/// Whether a refused token says that it was good once.
const INVALID: &str = "token_invalid";
const EXPIRED: &str = "token_expired";

struct Forge {
    pair: Ed25519KeyPair,
    header: Value,
    claims: Value,
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// `base` with these members set; `null` takes a member away.
fn with(base: &Value, changes: &Value) -> Value {
    let mut changed = base.as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        changed.remove(name);
        if !value.is_null() {
            changed.insert(name.clone(), value.clone());
        }
    }
    Value::Object(changed)
}

impl Forge {
    /// With the instance's own key, and the claims of a session that is live.
    async fn of(database: &TestDatabase) -> Self {
        let db = &database.database;
        let sealing = Sealing::start(db, &MasterKeySource::Given(MASTER_KEY.into())).await.unwrap();
        let key = signing_key::Entity::find().one(db.reader()).await.unwrap().unwrap();
        let private = sealing.open(&places::signing_key(&key.kid), &key.sealed_private).unwrap();
        let session = session::Entity::find().one(db.reader()).await.unwrap().unwrap();
        let now = clock::now(db.reader()).await.unwrap().timestamp();
        Self {
            pair: Ed25519KeyPair::from_pkcs8(private.expose_secret()).unwrap(),
            header: json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid}),
            claims: json!({"iss": "keywright", "aud": "keywright-api", "sub": session.user_id, "sid": session.id,
                "jti": ids::new(), "exp": now + 600, "nbf": now - 1, "iat": now - 1}),
        }
    }

    fn text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.text(&with(&self.header, header).to_string(), &with(&self.claims, claims).to_string())
    }

    fn headed(&self, header: Value) -> String {
        self.token(&header, &json!({}))
    }

    fn claimed(&self, claims: Value) -> String {
        self.token(&json!({}), &claims)
    }

    /// Header and claims under another algorithm, signed by `sign`.
    fn under(&self, alg: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", encode(&with(&self.header, &json!({"alg": alg}))), encode(&self.claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn attacks(&self, refresh: &str) -> Vec<(&'static str, String, &'static str)> {
        let now = self.claims["exp"].as_i64().unwrap() - 600;
        let stranger = Self {
            pair: Ed25519KeyPair::generate().unwrap(),
            header: self.header.clone(),
            claims: self.claims.clone(),
        };
        let x = URL_SAFE_NO_PAD.encode(stranger.pair.public_key().as_ref());
        let jwk = json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}});
        let public = self.pair.public_key().as_ref();
        let hmac = |key: &[u8]| {
            self.under("HS256", |message| {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
            })
        };
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let valid = self.claimed(json!({}));
        let (message, signature) = valid.rsplit_once('.').unwrap();
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        let twice = |text: &str, member: &str| format!("{{{member},{}", &text[1..]);
        let bad_utf8 = |part: &[u8]| {
            let message = format!("{}.{}", encode(&self.header), URL_SAFE_NO_PAD.encode(part));
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
        };
        let mut attacks = vec![
            ("no signature", format!("{message}."), INVALID),
            ("no signature part", message.to_owned(), INVALID),
            ("four parts", format!("{valid}.{signature}"), INVALID),
            ("the signature twice", format!("{valid}{signature}"), INVALID),
            ("HS256 with the public key", hmac(public), INVALID),
            ("HS256 with the public key as text", hmac(URL_SAFE_NO_PAD.encode(public).as_bytes()), INVALID),
            ("HS256 with an empty key", hmac(b""), INVALID),
            (
                "ES256 with a key of one's own",
                self.under("ES256", |message| ecdsa.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()),
                INVALID,
            ),
            ("somebody else's key", stranger.claimed(json!({})), INVALID),
            ("a key in the token", stranger.headed(jwk.clone()), INVALID),
            ("a key beside a good signature", self.headed(jwk), INVALID),
            ("somebody else's key, expired", stranger.claimed(json!({"exp": now - 60})), INVALID),
            (
                "duplicate sub",
                self.text(&header, &twice(&claims, r#""sub":"0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99""#)),
                INVALID,
            ),
            ("duplicate exp", self.text(&header, &twice(&claims, r#""exp":1"#)), INVALID),
            ("duplicate alg", self.text(&twice(&header, r#""alg":"none""#), &claims), INVALID),
            ("bad UTF-8", bad_utf8(b"{\"iss\":\"\xff\xfe\"}"), INVALID),
            ("200 kilobytes of claims", self.claimed(json!({"jti": "x".repeat(200_000)})), INVALID),
            ("a megabyte of claims", self.claimed(json!({"jti": "x".repeat(1 << 20)})), INVALID),
            ("200 kilobytes of signature", format!("{message}.{}", "A".repeat(200_000)), INVALID),
            ("a refresh token", refresh.to_owned(), INVALID),
            ("no token of ours", "Zm9vYmFyYmF6.Zm9vYmFyYmF6.Zm9vYmFyYmF6".to_owned(), INVALID),
            ("expired", self.claimed(json!({"exp": now - 60})), EXPIRED),
            ("expired just now", self.claimed(json!({"exp": now})), EXPIRED),
        ];
        for alg in ["none", "None", "nOnE", "", "HS256", "HS512", "RS256", "PS256", "ES256", "Ed25519", "eddsa"] {
            attacks.push(("called otherwise, unsigned", self.under(alg, |_| Vec::new()), INVALID));
            attacks.push(("called otherwise, signed", self.headed(json!({"alg": alg})), INVALID));
        }
        for kid in [
            json!(null),
            json!(""),
            json!("nobody-knows-this"),
            json!("../../../../../../dev/null"),
            json!("file:///etc/passwd"),
            json!("x' OR '1'='1' --"),
            json!("'; DROP TABLE signing_key; --"),
            json!("a\u{0}b"),
            json!(["a"]),
            json!(7),
            json!({"a": 1}),
        ] {
            attacks.push(("kid", self.headed(json!({"kid": kid})), INVALID));
        }
        for header in [
            json!({"jku": "https://evil.example/jwks"}),
            json!({"x5u": "https://evil.example/x"}),
            json!({"x5c": ["AAAA"]}),
            json!({"crit": ["exp"]}),
            json!({"b64": false}),
            json!({"zip": "DEF"}),
            json!({"cty": "JWT"}),
            json!({"typ": "JWT"}),
            json!({"typ": "application/at+jwt+x"}),
            json!({"typ": null}),
            json!({"alg": null}),
            json!({"alg": ["EdDSA"]}),
        ] {
            attacks.push(("header", self.headed(header), INVALID));
        }
        for claims in [
            json!({"aud": "somebody-else"}),
            json!({"aud": ["keywright-api", "somebody-else"]}),
            json!({"aud": null}),
            json!({"aud": ""}),
            json!({"iss": "https://evil.example"}),
            json!({"iss": "keywright "}),
            json!({"iss": null}),
            json!({"sub": "admin"}),
            json!({"sub": null}),
            json!({"sid": null}),
            json!({"jti": null}),
            json!({"exp": null}),
            json!({"exp": "9999999999"}),
            json!({"exp": i64::MAX}),
            json!({"exp": -1e300}),
            json!({"nbf": now + 120}),
            json!({"nbf": null}),
            json!({"nbf": i64::MAX}),
            json!({"iat": now + 120}),
            json!({"iat": null}),
            json!({"role": "admin"}),
        ] {
            attacks.push(("claims", self.claimed(claims), INVALID));
        }
        attacks
    }
}

async fn nothing_but_our_own_tokens_in_their_time_is_accepted(database: TestDatabase) {
    let (process, url) = Instance::another_api_with(&database, &[("KEYWRIGHT_LOG", "trace")]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = json!({"username": "admin", "password": keywright_tests::http::ADMIN_PASSWORD});
    let session = client.post(format!("{url}/api/auth/login")).json(&login).send().await.unwrap();
    let session: Value = session.json().await.unwrap();
    let forge = Forge::of(&database).await;
    let me = async |token: &str| client.get(format!("{url}/api/auth/me")).bearer_auth(token).send().await.unwrap();
    assert_eq!(me(&forge.claimed(json!({}))).await.status(), 200, "the control");
    assert_eq!(
        me(&forge.claimed(json!({"nbf": forge.claims["nbf"].as_i64().unwrap() + 20}))).await.status(),
        200,
        "a clock that is a little off"
    );
    let attacks = forge.attacks(session["refresh_token"].as_str().unwrap());
    for (what, token, code) in &attacks {
        let shown: String = token.chars().take(80).collect();
        let answer = me(token).await;
        assert_eq!(answer.status(), 401, "{what}: {shown}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{what}");
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{what}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((problem["code"].as_str(), problem["status"].as_i64()), (Some(*code), Some(401)), "{what}: {shown}");
    }
    // as a cookie, and beside another header, it is no better
    for (what, token, _) in attacks.iter().filter(|(_, token, _)| token.len() < 4096) {
        let cookie = client.get(format!("{url}/api/auth/me")).header("Cookie", format!("__Host-keywright={token}"));
        let status = cookie.send().await.unwrap().status();
        assert_eq!(status, 401, "{what}");
    }
    let log = process.log();
    assert!(log.contains("\"status\":401"), "it logs its answers");
    for secret in [session["access_token"].as_str().unwrap(), session["refresh_token"].as_str().unwrap()] {
        assert!(!log.contains(secret), "a good token is in the log");
    }
    let parts = attacks.iter().flat_map(|(what, token, _)| token.split('.').map(move |part| (what, part)));
    for (what, part) in parts.filter(|(_, part)| part.len() >= 12) {
        let part: String = part.chars().take(200).collect();
        assert!(!log.contains(&part), "a part of a token is in the log: {what}: {part}");
    }
    for decoded in ["evil.example", "DROP TABLE signing_key", "dev/null", "nobody-knows-this", "somebody-else"] {
        assert!(!log.contains(decoded), "what a token says is in the log: {decoded}");
    }
}
