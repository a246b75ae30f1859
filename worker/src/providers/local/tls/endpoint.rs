//! `host:port` as users write it.

use rustls::pki_types::ServerName;
use std::fmt;
use url::Host;

/// A place where TLS may be spoken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Lower case; international names in their ASCII form, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// What the certificate must be for, and what is asked for by SNI unless it is an address.
    pub name: ServerName<'static>,
}

impl Endpoint {
    /// Reads `host:port` or `[address]:port`.
    pub fn read(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
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
        Some(Self { host, port, name })
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
            ("https://example.com:443", None),
            ("2001:db8::1:443", None),
            ("exa mple.com:443", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Endpoint::read(text).map(|endpoint| endpoint.to_string()).as_deref(), expected, "{text}");
        }
    }
}
