//! The browser's side: two HttpOnly cookies, and the proof that a request comes from our own pages.

use chrono::{DateTime, Utc};
use poem::{
    Request,
    http::{HeaderMap, Method, header},
    web::cookie::{Cookie, CookieJar, SameSite},
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// The name of the access token's cookie behind TLS. `__Host-` makes browsers insist on Secure, Path=/ and no Domain.
pub const ACCESS_COOKIE: &str = "__Host-keywright";
/// What the cookies of ways to the provider of single sign-on begin with.
const SSO_COOKIE: &str = "__Host-keywright-sso-";
const PLAIN_SSO_COOKIE: &str = "keywright-sso-";
/// A little longer than a way is good: whoever comes late is told so.
const SSO_AGE: Duration = Duration::from_secs(900);
const REFRESH_COOKIE: &str = "__Host-keywright-refresh";
/// The names over plain http, where browsers refuse the prefix.
const PLAIN_ACCESS_COOKIE: &str = "keywright";
const PLAIN_REFRESH_COOKIE: &str = "keywright-refresh";

/// Which cookies this instance sets and reads.
#[derive(Clone, Copy, Debug)]
pub struct CookieNames {
    secure: bool,
}

impl CookieNames {
    /// `secure` is false only for instances that are reached over plain http.
    pub fn new(secure: bool) -> Self {
        Self { secure }
    }

    fn access(self) -> &'static str {
        if self.secure { ACCESS_COOKIE } else { PLAIN_ACCESS_COOKIE }
    }

    fn refresh(self) -> &'static str {
        if self.secure { REFRESH_COOKIE } else { PLAIN_REFRESH_COOKIE }
    }

    /// The access token that the browser sent.
    pub fn read_access(self, request: &Request) -> Option<&str> {
        read(request.headers(), self.access())
    }

    /// The refresh token that the browser sent.
    pub fn read_refresh(self, request: &Request) -> Option<&str> {
        read(request.headers(), self.refresh())
    }

    /// Hands both tokens to the browser.
    pub fn set(self, jar: &CookieJar, now: DateTime<Utc>, access: Token<'_>, refresh: Token<'_>) {
        for (name, token) in [(self.access(), access), (self.refresh(), refresh)] {
            let age = (token.ends - now).to_std().unwrap_or_default();
            jar.add(self.cookie(name, token.secret.expose_secret(), age));
        }
    }

    /// Takes both tokens from the browser.
    pub fn clear(self, jar: &CookieJar) {
        for name in [self.access(), self.refresh()] {
            jar.add(self.cookie(name, "", Duration::ZERO));
        }
    }

    /// What the names of cookies begin with that are kept while somebody is at the provider of single sign-on.
    pub fn sso_prefix(self) -> &'static str {
        if self.secure { SSO_COOKIE } else { PLAIN_SSO_COOKIE }
    }

    /// Such a cookie. It comes back from another site's page, on which a strict one would stay away.
    pub fn sso_begun(self, name: &str, value: &str) -> Cookie {
        let mut cookie = self.cookie(name, value, SSO_AGE);
        cookie.set_same_site(SameSite::Lax);
        cookie
    }

    /// Takes it from the browser.
    pub fn sso_ended(self, name: &str) -> Cookie {
        let mut cookie = self.cookie(name, "", Duration::ZERO);
        cookie.set_same_site(SameSite::Lax);
        cookie
    }

    fn cookie(self, name: &str, value: &str, max_age: Duration) -> Cookie {
        let mut cookie = Cookie::new_with_str(name, value);
        cookie.set_http_only(true);
        cookie.set_secure(self.secure);
        cookie.set_same_site(SameSite::Strict);
        cookie.set_path("/");
        cookie.set_max_age(max_age);
        cookie
    }
}

/// A token and the instant at which it ends.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    pub secret: &'a SecretString,
    pub ends: DateTime<Utc>,
}

/// The value of a cookie (RFC 6265, 5.4). Our values need no decoding.
pub(super) fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    pairs(headers).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The names of cookies that begin so.
pub(super) fn names(headers: &HeaderMap, prefix: &str) -> Vec<String> {
    pairs(headers).map(|(name, _)| name).filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// Whether a method is one that changes nothing (RFC 9110, 9.2.1).
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the browser says that the request comes from our own origin or from the user's own hand.
///
/// `Sec-Fetch-Site` cannot be set by scripts. Without it (older browsers) the host of `Origin` must be the host asked for;
/// without either there is no evidence.
pub fn is_same_origin(request: &Request) -> bool {
    let headers = request.headers();
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let asked = text("host").or_else(|| request.original_uri().authority().map(|host| host.as_str()));
            matches!((host, asked), (Some(host), Some(asked)) if host.eq_ignore_ascii_case(asked))
        }
        (None, None) => false,
    }
}

/// Whether a browser says that another site's page sent the request. Programs that are none say nothing.
pub fn is_cross_site(request: &Request) -> bool {
    let says = |name| request.headers().contains_key(name);
    (says("sec-fetch-site") || says("origin")) && !is_same_origin(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        headers.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value)).finish()
    }

    #[test]
    fn only_evidence_of_the_same_origin_counts() {
        for (headers, same) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://kw.example"), ("host", "kw.example")], false),
            (&[("origin", "https://kw.example"), ("host", "kw.example")], true),
            (&[("origin", "http://kw.example:8080"), ("host", "KW.example:8080")], true),
            (&[("origin", "https://kw.example:8443"), ("host", "kw.example")], false),
            (&[("origin", "https://evil.example"), ("host", "kw.example")], false),
            (&[("origin", "https://kw.example.evil"), ("host", "kw.example")], false),
            (&[("origin", "null"), ("host", "kw.example")], false),
            (&[("host", "kw.example")], false),
            (&[], false),
        ] {
            assert_eq!(is_same_origin(&request(headers)), same, "{headers:?}");
        }
    }

    #[test]
    fn cookies_are_found_among_others_by_their_whole_name() {
        let request =
            request(&[("cookie", "a=1; keywright-refresh=r; x__Host-keywright=no"), ("cookie", "keywright=t")]);
        let plain = CookieNames::new(false);
        assert_eq!((plain.read_access(&request), plain.read_refresh(&request)), (Some("t"), Some("r")));
        assert_eq!(CookieNames::new(true).read_access(&request), None);
    }

    #[test]
    fn cookies_are_locked_down() {
        let jar = CookieJar::default();
        let (now, secret) = (DateTime::UNIX_EPOCH, SecretString::from("t"));
        let token = Token { secret: &secret, ends: now + chrono::TimeDelta::minutes(15) };
        CookieNames::new(true).set(&jar, now, token, token);
        let text = jar.get(ACCESS_COOKIE).unwrap().to_string();
        assert_eq!(text, "__Host-keywright=t; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=900");
        let begun = CookieNames::new(true).sso_begun("__Host-keywright-sso-x", "v").to_string();
        assert_eq!(begun, "__Host-keywright-sso-x=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=900");
        CookieNames::new(true).clear(&jar);
        assert!(jar.get(REFRESH_COOKIE).unwrap().to_string().ends_with("Secure; Path=/; Max-Age=0"));
    }
}
