//! Where a request comes from: the peer of the connection, or, behind proxies that the operator trusts, whom they name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use poem::Request;
use poem::http::HeaderMap;

/// The client's address, in the data of every request that came through [`crate::front::Front`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The client's address; that of the peer where no layer has found it out, and the unspecified one where there is none.
#[must_use]
pub fn client_address(request: &Request) -> IpAddr {
    request.data::<ClientAddress>().map_or_else(|| peer(request), |found| found.0)
}

/// What one client has for itself: an IPv4 address, or the network of 64 bits around an IPv6 address.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

fn peer(request: &Request) -> IpAddr {
    let address = request.remote_addr().as_socket_addr().map(SocketAddr::ip);
    address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical()
}

/// The networks of proxies whose word about the client counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whom `request` comes from. The client may have written the left part of what it sends along; each proxy adds at the
    /// right whom it heard it from, so the rightmost address that is no proxy of ours is the client.
    #[must_use]
    pub fn client(&self, request: &Request) -> IpAddr {
        let peer = peer(request);
        if !self.trusts(peer) {
            return peer;
        }
        let headers = request.headers();
        let (legacy, standard) =
            (hops(headers, "x-forwarded-for", legacy_hop), hops(headers, "forwarded", standard_hop));
        match (legacy, standard) {
            (Some(one), Some(other)) => {
                let (one, other) = (self.rightmost(peer, one), self.rightmost(peer, other));
                // a proxy writes one of them, and then the other is the client's own invention
                if one == other { one } else { peer }
            }
            (Some(hops), None) | (None, Some(hops)) => self.rightmost(peer, hops),
            (None, None) => peer,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    fn rightmost(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut last = peer;
        for hop in hops.into_iter().rev() {
            // what is no address was hidden, or made up: the last proxy that could be told is as far as we see
            let Some(hop) = hop else { break };
            last = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        last
    }
}

/// The members of a list header, over all its lines; `None` without one.
fn hops(headers: &HeaderMap, name: &str, hop: fn(&str) -> Option<IpAddr>) -> Option<Vec<Option<IpAddr>>> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    let members = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty());
    (!lines.is_empty()).then(|| members.map(hop).collect())
}

fn legacy_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let address = text.parse().or_else(|_| bracketed.unwrap_or_default().parse::<Ipv6Addr>().map(IpAddr::V6));
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// `for=192.0.2.60;proto=http` (RFC 7239).
fn standard_hop(text: &str) -> Option<IpAddr> {
    let pair = text.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    legacy_hop(pair?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use poem::Addr;
    use poem::web::RemoteAddr;

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.finish();
        let (mut parts, body) = request.into_parts();
        let remote = RemoteAddr(Addr::SocketAddr(SocketAddr::new(peer.parse().unwrap(), 1)));
        parts = poem::RequestParts::from((
            {
                let (mut head, ()) = poem::http::Request::new(()).into_parts();
                head.headers = parts.headers;
                head
            },
            Default::default(),
            remote,
            poem::http::uri::Scheme::HTTP,
        ));
        proxies.client(&Request::from_parts(parts, body)).to_string()
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let header = [("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client("203.0.113.9", &header), "203.0.113.9");
        assert_eq!(client("10.1.1.1", &header), "198.51.100.7");
        assert_eq!(client("::ffff:10.1.1.1", &header), "198.51.100.7");
        assert_eq!(client("10.1.1.1", &[]), "10.1.1.1");
    }

    #[test]
    fn the_rightmost_hop_that_is_no_proxy_is_the_client() {
        for (header, expected) in [
            ("1.1.1.1, 198.51.100.7", "198.51.100.7"),
            ("1.1.1.1, 198.51.100.7, 10.2.2.2", "198.51.100.7"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("1.1.1.1, unknown, 10.2.2.2", "10.2.2.2"),
            ("1.1.1.1, unknown", "10.1.1.1"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            (",, ,", "10.1.1.1"),
            ("", "10.1.1.1"),
            ("'; DROP TABLE", "10.1.1.1"),
        ] {
            assert_eq!(client("10.1.1.1", &[("x-forwarded-for", header)]), expected, "{header}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client("10.1.1.1", &lines), "198.51.100.7");
    }

    #[test]
    fn the_standard_header_is_read_and_both_must_agree() {
        let standard = ("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]:80\";proto=https;by=10.1.1.1");
        assert_eq!(client("10.1.1.1", &[standard]), "2001:db8::1");
        assert_eq!(client("fd00::1", &[("forwarded", "for=_hidden")]), "fd00::1");
        assert_eq!(client("10.1.1.1", &[standard, ("x-forwarded-for", "1.1.1.1")]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &[standard, ("x-forwarded-for", "2001:db8::1")]), "2001:db8::1");
    }

    #[test]
    fn one_client_has_a_network_of_64_bits() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("198.51.100.7"), "198.51.100.7");
        assert_eq!(of("::ffff:198.51.100.7"), "198.51.100.7");
    }
}
