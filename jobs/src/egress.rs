//! The guard between addresses that users enter and the network that this process can reach.
//!
//! A user of Keywright may name any host; without a guard the process would become that user's way into the machine's own
//! services, the local network and a cloud's metadata address (server-side request forgery). The rule: only public unicast
//! addresses, unless the operator allowed the network or the place (`KEYWRIGHT_EGRESS_ALLOW`).
//!
//! The guard is a dialer and not only a resolver, because clients connect to IP literals without asking a resolver. It
//! resolves once, refuses a name if *any* of its addresses is refused, connects to exactly the addresses that it checked, and
//! looks at the peer's address after the connect.

mod address;
mod http;

pub use http::{FetchError, GuardedHttp};

use crate::setup::config::EgressAllow;
use async_trait::async_trait;
use ipnet::IpNet;
use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use url::Host;

/// How a refusal is called wherever it is told: in reasons, warnings, errors of a field and audit events.
pub const REFUSED: &str = "address_refused";

/// Which addresses beside the public ones may be reached.
#[derive(Clone, Debug)]
pub struct EgressGuard {
    networks: Vec<IpNet>,
    places: BTreeSet<(String, u16)>,
    public: bool,
    names: Arc<dyn Names>,
}

impl Default for EgressGuard {
    fn default() -> Self {
        Self { networks: Vec::new(), places: BTreeSet::new(), public: true, names: Arc::new(SystemNames) }
    }
}

/// Where a name leads; tests answer it themselves.
#[async_trait]
pub trait Names: fmt::Debug + Send + Sync {
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

#[derive(Debug)]
struct SystemNames;

#[async_trait]
impl Names for SystemNames {
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }
}

/// Why no connection was made.
#[derive(Debug, Error)]
pub enum EgressError {
    #[error(
        "{host} leads to {address}, which is not a public address; an operator can allow it with KEYWRIGHT_EGRESS_ALLOW"
    )]
    Refused { host: String, address: IpAddr },
    #[error("the name {host} could not be resolved")]
    Unresolved { host: String },
    #[error("no connection was made in time")]
    TimedOut,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl EgressGuard {
    /// A guard that lets `allowed` through beside the public addresses.
    pub fn new(allowed: &[EgressAllow]) -> Self {
        let mut guard = Self::default();
        for entry in allowed {
            match entry {
                EgressAllow::Net(network) => guard.networks.push(*network),
                EgressAllow::HostPort { host, port } => {
                    guard.places.insert((comparable(host), *port));
                }
            }
        }
        guard
    }

    /// The same, with this place of the operator's own let through.
    #[must_use]
    pub fn with_place(mut self, host: &str, port: u16) -> Self {
        self.places.insert((comparable(host), port));
        self
    }

    /// The same, with names that lead where `names` says.
    #[must_use]
    pub fn with_names(self, names: Arc<dyn Names>) -> Self {
        Self { names, ..self }
    }

    /// The same without the public addresses: for requests that carry what their receiver could use, and so may lead only where
    /// the operator said.
    #[must_use]
    pub fn listed_only(&self) -> Self {
        Self { public: false, ..self.clone() }
    }

    /// Whether `host` could be reached: an address, however it is spelled, by itself; a name, which leads somewhere only when it is used,
    /// unless all that it could lead to is refused.
    pub fn could_permit(&self, host: &str, port: u16) -> bool {
        match literal(host) {
            Some(address) => self.permits(host, port, address),
            None => self.public || !self.networks.is_empty() || self.places.contains(&(comparable(host), port)),
        }
    }

    /// Whether `host`, which leads to `address`, may be reached on `port`.
    pub fn permits(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let embedded = address::unwrapped(address);
        (self.public && address::is_public(address))
            || self.networks.iter().any(|network| network.contains(&address) || network.contains(&embedded))
            || self.places.contains(&(comparable(host), port))
    }

    /// The addresses of `host`, each of them permitted.
    ///
    /// # Errors
    /// [`EgressError::Refused`] when one of them is not, so that a name cannot hide a private address among public ones.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let addresses: Vec<SocketAddr> = match literal(host) {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => {
                let found = self.names.look_up(host, port).await;
                found.map_err(|_| EgressError::Unresolved { host: host.to_owned() })?
            }
        };
        if addresses.is_empty() {
            return Err(EgressError::Unresolved { host: host.to_owned() });
        }
        match addresses.iter().find(|found| !self.permits(host, port, found.ip())) {
            Some(refused) => Err(EgressError::Refused { host: host.to_owned(), address: refused.ip() }),
            None => Ok(addresses),
        }
    }

    /// Connects to `host` before `deadline`, over addresses that were checked.
    ///
    /// # Errors
    /// See [`EgressError`]; with several addresses, the error of the last one tried.
    pub async fn connect(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, EgressError> {
        let addresses = timeout_at(deadline, self.resolve(host, port)).await.map_err(|_| EgressError::TimedOut)??;
        let mut failure = EgressError::TimedOut;
        for (position, address) in addresses.iter().enumerate() {
            // an address that swallows packets may use only its share of what is left
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = u32::try_from(addresses.len() - position).unwrap_or(u32::MAX);
            match timeout_at(Instant::now() + left / waiting, TcpStream::connect(address)).await {
                Ok(Ok(stream)) if stream.peer_addr()?.ip() == address.ip() => return Ok(stream),
                Ok(Ok(stream)) => {
                    return Err(EgressError::Refused { host: host.to_owned(), address: stream.peer_addr()?.ip() });
                }
                Ok(Err(error)) => failure = EgressError::Io(error),
                Err(_) => failure = EgressError::TimedOut,
            }
        }
        Err(failure)
    }
}

/// An IP address as it is written in a host: bare, in the brackets of RFC 3986, or in one of the spellings that resolvers and
/// URL parsers take for one, such as `0x7f.1`.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok().or_else(|| match Host::parse(bare).ok()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    })
}

fn comparable(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    fn guard(entries: &[&str]) -> EgressGuard {
        EgressGuard::new(&entries.iter().map(|entry| entry.parse().unwrap()).collect::<Vec<_>>())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn lets_networks_and_places_through() {
        let guard = guard(&["10.0.0.0/8", "fd00::/8", "192.168.1.7/32", "DB.internal:5432", "[::1]:443"]);
        let cases = [
            ("x", 1, "10.9.9.9", true),
            ("x", 1, "11.0.0.0", true),
            ("x", 1, "192.168.1.7", true),
            ("x", 1, "192.168.1.8", false),
            ("x", 1, "fd12::1", true),
            ("x", 1, "::ffff:10.0.0.1", true),
            ("db.INTERNAL.", 5432, "172.16.0.1", true),
            ("db.internal", 5433, "172.16.0.1", false),
            ("::1", 443, "::1", true),
            ("[::1]", 443, "::1", true),
            ("::1", 444, "::1", false),
        ];
        for (host, port, address, expected) in cases {
            assert_eq!(guard.permits(host, port, address.parse().unwrap()), expected, "{host}:{port} {address}");
        }
    }

    #[tokio::test]
    async fn refuses_what_is_not_public_before_connecting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "169.254.169.254", "0.0.0.0"] {
            let error = guard(&[]).connect(host, port, soon()).await.unwrap_err();
            assert!(matches!(error, EgressError::Refused { .. }), "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn other_spellings_of_an_address_are_that_address() {
        for host in [
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "127.1",
            "127.0.0.1.",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "2852039166",
            "0xa9fea9fe",
            "fd00:ec2::254",
        ] {
            let error = guard(&[]).connect(host, 80, soon()).await.unwrap_err();
            assert!(matches!(error, EgressError::Refused { .. }), "{host}: {error}");
            assert!(!guard(&[]).could_permit(host, 80), "{host}");
        }
        for host in ["example.com", "1.1.1.1", "0x01010101", "localhost", "127.0.0.1.example.com"] {
            assert!(guard(&[]).could_permit(host, 80), "{host}");
        }
    }

    /// Answers each question with the next of its answers.
    #[derive(Debug)]
    struct Scripted(std::sync::Mutex<std::collections::VecDeque<Vec<SocketAddr>>>);

    #[async_trait]
    impl Names for Scripted {
        async fn look_up(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            self.0.lock().unwrap().pop_front().ok_or_else(|| io::Error::other("asked once too often"))
        }
    }

    fn scripted(guard: EgressGuard, answers: &[&[SocketAddr]]) -> EgressGuard {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        guard.with_names(Arc::new(Scripted(std::sync::Mutex::new(answers))))
    }

    #[tokio::test]
    async fn a_name_that_moves_between_check_and_connect_leads_nowhere() {
        let (inside, outside) = tokio::join!(TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.2:0"));
        let (inside, outside) = (inside.unwrap(), outside.unwrap());
        let (private, public) = (inside.local_addr().unwrap(), outside.local_addr().unwrap());
        // 127.0.0.2 stands for the internet
        let guard = scripted(guard(&["127.0.0.2/32"]), &[&[public], &[private], &[public]]);
        assert!(guard.resolve("rebinding.test", 80).await.is_ok());
        let error = guard.connect("rebinding.test", 80, soon()).await.unwrap_err();
        assert!(matches!(error, EgressError::Refused { .. }), "{error}");
        // what was checked is what is dialled: there is no second question to answer differently
        let stream = guard.connect("rebinding.test", 80, soon()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), public);
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_refuses_the_name() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 80);
        for hidden in ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fe80::1", "100.64.0.1"] {
            let answer = [address("1.1.1.1"), address(hidden), address("2606:4700:4700::1111")];
            let error = scripted(guard(&[]), &[&answer]).connect("mixed.test", 80, soon()).await.unwrap_err();
            assert!(matches!(error, EgressError::Refused { .. }), "{hidden}: {error}");
        }
    }

    #[tokio::test]
    async fn connects_to_what_is_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let by_network = guard(&["127.0.0.0/8"]).connect("127.0.0.1", port, soon()).await.unwrap();
        assert_eq!(by_network.peer_addr().unwrap().port(), port);
        let place = format!("127.0.0.1:{port}");
        guard(&[&place]).connect("127.0.0.1", port, soon()).await.unwrap();
    }

    #[test]
    fn without_the_public_addresses_only_what_is_listed_is_left() {
        let guard = guard(&["10.0.0.0/8", "1.1.1.1:443"]).listed_only();
        let cases = [
            ("x", 443, "10.9.9.9", true),
            ("1.1.1.1", 443, "1.1.1.1", true),
            ("1.1.1.1", 80, "1.1.1.1", false),
            ("x", 443, "8.8.8.8", false),
        ];
        for (host, port, address, expected) in cases {
            assert_eq!(guard.permits(host, port, address.parse().unwrap()), expected, "{host}:{port} {address}");
        }
        assert!(!guard.could_permit("8.8.8.8", 443));
        assert!(guard.could_permit("a.example", 443), "it may lead into what is listed");
    }

    #[test]
    fn a_name_is_refused_at_once_where_it_can_lead_nowhere_permitted() {
        let open = guard(&["proxy.example:8443"]);
        let closed = open.listed_only();
        assert!(closed.could_permit("proxy.example", 8443) && open.could_permit("a.example", 443));
        assert!(!closed.could_permit("proxy.example", 443) && !closed.could_permit("a.example", 8443));
        assert!(!closed.could_permit("8.8.8.8", 443) && !open.could_permit("127.0.0.1", 8443));
    }

    #[tokio::test]
    async fn an_unknown_name_is_told_apart_from_a_refused_one() {
        let error = guard(&[]).connect("no-such-host.invalid", 443, soon()).await.unwrap_err();
        assert!(matches!(error, EgressError::Unresolved { .. }), "{error}");
    }
}
