//! `host:port` as users write it.

use super::starttls::Opening;
use rustls::pki_types::ServerName;
use std::fmt;
use url::Host;

/// A place where TLS may be spoken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Lower case; international names in their ASCII form, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// What is spoken there before TLS.
    pub opening: Opening,
    /// What the certificate must be for, and what is asked for by SNI unless it is an address.
    pub name: ServerName<'static>,
}

impl Endpoint {
    /// Reads `host:port` or `[address]:port`, with `smtp://`, `imap://`, `postgres://` or `tls://` before it where what is usual at the
    /// port is not what is spoken there.
    pub fn read(text: &str) -> Option<Self> {
        let (opening, place) = match text.trim().split_once("://") {
            Some((scheme, place)) => (Some(Opening::named(&scheme.to_ascii_lowercase())?), place),
            None => (None, text.trim()),
        };
        let (host, port) = place.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        if host.contains(|c: char| c.is_whitespace() || c == '%') {
            return None;
        }
        // the URL parser also makes one form of the many spellings of an IPv4 address
        let host = match Host::parse(host).ok()? {
            Host::Domain(name) => name.trim_end_matches('.').to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let name = ServerName::try_from(host.clone()).ok()?;
        Some(Self { host, port, opening: opening.unwrap_or(Opening::usual(port)), name })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let cases = [
            ("example.com:443", Some("example.com:443")),
            (" Example.COM.:8443 ", Some("example.com:8443")),
            ("bücher.example:443", Some("xn--bcher-kva.example:443")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("2130706433:1", Some("127.0.0.1:1")),
            ("[2001:DB8::1]:443", Some("[2001:db8::1]:443")),
            ("my_host.internal:443", Some("my_host.internal:443")),
            ("example.com", None),
            ("example.com:", None),
            (":443", None),
            ("example.com:0", None),
            ("example.com:65536", None),
            ("SMTP://mail.example.com:2525", Some("mail.example.com:2525")),
            ("smtp://mail.example.com", None),
            ("smtp://[::1]:25", Some("[::1]:25")),
            ("smtp://mail.example.com:25/", None),
            ("https://example.com:443", None),
            ("2001:db8::1:443", None),
            ("exa mple.com:443", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Endpoint::read(text).map(|endpoint| endpoint.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_spoken_first_is_said_or_usual() {
        for (text, opening) in [
            ("a.example:443", Opening::Tls),
            ("a.example:25", Opening::Smtp),
            ("a.example:587", Opening::Smtp),
            ("a.example:465", Opening::Tls),
            ("a.example:143", Opening::Imap),
            ("a.example:5432", Opening::Postgres),
            ("postgresql://a.example:6432", Opening::Postgres),
            ("tls://a.example:5432", Opening::Tls),
        ] {
            assert_eq!(Endpoint::read(text).unwrap().opening, opening, "{text}");
        }
    }
}
