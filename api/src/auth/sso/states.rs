//! What a browser keeps while its user is at the provider: the other half of the state, sealed, in a cookie of its own for each
//! way, so that several tabs do not get into each other's.
//!
//! The cookie is `SameSite=Lax`: the way back comes from another site, on which a strict one would not be sent.

use crate::auth::cookies::{self, CookieNames};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use keywright_jobs::setup::{
    ids::{self, NoRandomness},
    sealing::SealError,
};
use poem::http::HeaderMap;
use serde::{Deserialize, Serialize};

const NONCE: usize = 12;
/// Ways that a browser may have begun and not ended; with more, the oldest are forgotten.
const MOST: usize = 6;

/// A way to the provider.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    /// Goes to the provider and comes back; the rest stays.
    #[serde(skip)]
    pub state: String,
    pub nonce: String,
    pub verifier: String,
    pub next: String,
    /// Seconds since 1970.
    pub ends: i64,
}

impl Begun {
    pub(super) fn new(next: String, ends: DateTime<Utc>) -> Result<Self, NoRandomness> {
        let ends = ends.timestamp();
        // the time first, so that names of cookies have the order in which they end
        let state = format!("{ends:08x}{}", random()?);
        Ok(Self { state, nonce: random()?, verifier: random()?, next, ends })
    }
}

/// 43 characters with 256 random bits: what RFC 7636, 4.1, recommends for a verifier.
fn random() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(ids::random::<32>()?))
}

/// Seals and opens them; the same in every process of the instance.
pub(super) struct States {
    key: RandomizedNonceKey,
    cookies: CookieNames,
}

impl States {
    pub(super) fn new(key: &[u8; 32], cookies: CookieNames) -> Result<Self, SealError> {
        Ok(Self { key: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Cipher)?, cookies })
    }

    /// The cookie of the way with this state: what leads to it is in the query of the way back.
    pub(super) fn name(&self, state: &str) -> String {
        let time: String = state.chars().take(8).filter(char::is_ascii_hexdigit).collect();
        let hash: String = super::super::opaque::hash(state).chars().take(16).collect();
        format!("{}{time}{hash}", self.cookies.sso_prefix())
    }

    /// Name and value of the cookie.
    pub(super) fn seal(&self, begun: &Begun) -> Result<(String, String), SealError> {
        let mut buffer = serde_json::to_vec(begun).map_err(|_| SealError::Form)?;
        let aad = Aad::from(begun.state.as_bytes());
        let nonce = self.key.seal_in_place_append_tag(aad, &mut buffer).map_err(|_| SealError::Cipher)?;
        let value = URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &buffer].concat());
        Ok((self.name(&begun.state), value))
    }

    /// The way that this browser began with this state, if it may still be ended.
    pub(super) fn open(&self, state: &str, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Begun> {
        let mut sealed = URL_SAFE_NO_PAD.decode(cookies::read(headers, &self.name(state))?).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(state.as_bytes()), sealed).ok()?;
        let begun: Begun = serde_json::from_slice(plain).ok()?;
        (now.timestamp() < begun.ends).then(|| Begun { state: state.to_owned(), ..begun })
    }

    /// The names of cookies that make room for one more.
    pub(super) fn stale(&self, headers: &HeaderMap) -> Vec<String> {
        let mut present = cookies::names(headers, self.cookies.sso_prefix());
        present.sort_unstable();
        let many = (present.len() + 1).saturating_sub(MOST);
        present.truncate(many);
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poem::http::header::COOKIE;

    fn states(key: u8) -> States {
        States::new(&[key; 32], CookieNames::new(true)).unwrap()
    }

    fn headers(cookies: &[(String, String)]) -> HeaderMap {
        let text: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        [(COOKIE, text.join("; ").parse().unwrap())].into_iter().collect()
    }

    fn begun(next: &str) -> Begun {
        Begun::new(next.to_owned(), DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000)).unwrap()
    }

    #[test]
    fn each_way_is_ended_where_and_when_it_was_begun() {
        let (states, now) = (states(1), DateTime::UNIX_EPOCH);
        let (one, two) = (begun("/one"), begun("/two"));
        let (first, second) = (states.seal(&one).unwrap(), states.seal(&two).unwrap());
        let both = headers(&[first.clone(), second.clone()]);
        let opened = states.open(&one.state, &both, now).unwrap();
        assert_eq!((opened.next.as_str(), &opened.nonce, &opened.verifier), ("/one", &one.nonce, &one.verifier));
        assert_eq!(states.open(&two.state, &both, now).unwrap().next, "/two");
        // another browser, another state's cookie, another instance, too late
        assert!(states.open(&one.state, &headers(std::slice::from_ref(&second)), now).is_none());
        assert!(states.open(&one.state, &headers(&[(first.0.clone(), second.1)]), now).is_none());
        assert!(super::tests::states(2).open(&one.state, &both, now).is_none());
        assert!(states.open(&one.state, &both, now + chrono::TimeDelta::days(20_000)).is_none());
        for state in ["", "x", &one.state[1..], &format!("{}x", one.state)] {
            assert!(states.open(state, &both, now).is_none(), "{state}");
        }
        for at in 0..first.1.len() {
            let mut value = first.1.clone().into_bytes();
            value[at] = if value[at] == b'A' { b'B' } else { b'A' };
            let changed = headers(&[(first.0.clone(), String::from_utf8(value).unwrap())]);
            assert!(states.open(&one.state, &changed, now).is_none(), "byte {at}");
        }
        assert!(first.0.starts_with("__Host-keywright-sso-"), "{}", first.0);
    }

    #[test]
    fn a_browser_keeps_only_the_latest_ways() {
        let states = states(1);
        let name = |time: i64| states.name(&format!("{time:08x}rest"));
        let cookies: Vec<_> = [5, 1, 4, 2, 3, 6, 7].map(|time| (name(time), String::new())).into();
        assert_eq!(states.stale(&headers(&cookies)), [name(1), name(2)]);
        assert_eq!(states.stale(&headers(&cookies[..5])), [""; 0]);
    }
}
