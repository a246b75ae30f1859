//! Whatever is sent as an access token: it ends with an answer, and is accepted only when it is the one that we made.
#![no_main]

use chrono::{DateTime, TimeDelta, Utc};
use keywright_api::auth::{access, signing_keys::SigningKeys};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;
use std::sync::LazyLock;
use uuid::Uuid;

/// A key, and a good token of it.
static OURS: LazyLock<(SigningKeys, String)> = LazyLock::new(|| {
    let keys = SigningKeys::unstored().expect("a key");
    let ends = NOW + TimeDelta::days(1);
    let (token, _) = access::mint(&keys, Uuid::from_u128(1), Uuid::from_u128(2), NOW, ends).expect("a token");
    (keys, token.expose_secret().to_owned())
});

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_800_000_000, 0).expect("an instant");

fuzz_target!(|input: (Vec<u8>, u16, u8)| {
    let (bytes, at, how) = input;
    let (keys, token) = &*OURS;
    let text = String::from_utf8_lossy(&bytes);
    // the input alone, in the place of one part of a good token, and pushed into it
    let mut parts: Vec<&str> = token.split('.').collect();
    let part = usize::from(how % 3);
    parts[part] = &text;
    let at = usize::from(at) % token.len();
    for tried in [text.clone().into_owned(), parts.join("."), format!("{}{text}{}", &token[..at], &token[at..])] {
        let accepted = access::verify(keys, &tried, NOW).is_ok();
        assert!(!accepted || tried == *token, "accepted: {tried}");
    }
});
