//! The token by which a browser's own pages prove that they may read what this server answers: of each session one, given in
//! bodies alone, which no other origin can read, and sent back in a header, which no form can set.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem::Request;
use uuid::Uuid;

/// The header in which it comes back.
pub const HEADER: &str = "X-CSRF-Token";

/// Makes and checks them; nothing of them is stored.
pub struct Csrf(hmac::Key);

impl Csrf {
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The token of a session, the same for its whole life.
    #[must_use]
    pub fn token(&self, session: Uuid) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, session.as_bytes()))
    }

    /// Whether the request carries the token of this session, once.
    #[must_use]
    pub fn is_in(&self, request: &Request, session: Uuid) -> bool {
        let mut sent = request.headers().get_all(HEADER).iter();
        let token = sent.next().and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
        let token = token.filter(|_| sent.next().is_none());
        token.is_some_and(|token| hmac::verify(&self.0, session.as_bytes(), &token).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sessions_own_token_counts() {
        let (csrf, other) = (Csrf::new(b"one"), Csrf::new(b"two"));
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let request = |tokens: &[String]| {
            tokens.iter().fold(Request::builder(), |request, token| request.header(HEADER, token.as_str())).finish()
        };
        assert!(csrf.is_in(&request(&[csrf.token(one)]), one));
        let refused = [vec![], vec![String::new()], vec![csrf.token(two)], vec![other.token(one)]];
        for tokens in refused.into_iter().chain([vec![csrf.token(one), csrf.token(one)]]) {
            assert!(!csrf.is_in(&request(&tokens), one), "{tokens:?}");
        }
    }
}
