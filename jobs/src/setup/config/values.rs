//! The types of settings that are more than a number or a path.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use ipnet::IpNet;
use keywright_stores::kms::Kms;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};
use url::Url;

/// Shown in place of a secret.
pub(super) const MASK: &str = "***";

/// Where the key-encryption key (32 bytes, base64) is to be taken from.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// Given in the configuration; already checked to be 32 bytes in base64.
    Given(SecretString),
    /// A file that holds the base64 text. It must exist.
    File(PathBuf),
    /// A file in the data directory, made with mode 0600 when it is not there. SQLite only.
    Local(PathBuf),
    /// Kept in the database, wrapped by a key management service.
    Kms(Kms),
}

/// The key-encryption key, and the one before while values are still sealed with it.
#[derive(Clone, Debug)]
pub struct MasterKeys {
    pub current: MasterKeySource,
    pub previous: Option<MasterKeySource>,
}

impl From<&MasterKeySource> for MasterKeys {
    fn from(current: &MasterKeySource) -> Self {
        Self { current: current.clone(), previous: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// An Ed25519 public key. Shown in base64: it is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LicenceKey([u8; 32]);

impl LicenceKey {
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for LicenceKey {
    type Err = String;

    /// Takes what `openssl pkey -pubout` writes, its base64 alone, or the 32 bytes in base64. The error does not repeat the text:
    /// it may be the private key.
    fn from_str(text: &str) -> Result<Self, String> {
        /// What comes before the 32 bytes in a SubjectPublicKeyInfo (RFC 8410).
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let wrong = || {
            "is not an Ed25519 public key in PEM or base64; `openssl pkey -in private.pem -pubout` shows the one of a private \
             key"
            .to_owned()
        };
        let body = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect::<String>();
        let body = body.trim_end_matches('=').replace('-', "+").replace('_', "/");
        let bytes = STANDARD_NO_PAD.decode(body).map_err(|_| wrong())?;
        let key = bytes.strip_prefix(&HEAD).unwrap_or(&bytes);
        key.try_into().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for LicenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// The database's URL. `Debug` and `Display` mask the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    shown: String,
    kind: DatabaseKind,
}

impl DatabaseUrl {
    /// The URL with its password, for the driver only.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// The file of a SQLite database.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        let rest = self.expose().strip_prefix("sqlite://")?;
        Some(PathBuf::from(rest.split('?').next().unwrap_or(rest)))
    }

    fn sqlite(text: &str, path: &str) -> Result<Self, String> {
        let file = path.split('?').next().unwrap_or(path);
        if file.is_empty() || file.contains(":memory:") || path.contains("mode=memory") {
            return Err("names no file, and a database in memory cannot be shared by the API and the workers; write \
                        sqlite://data/keywright.db"
                .to_owned());
        }
        Ok(Self { url: text.to_owned().into(), shown: text.to_owned(), kind: DatabaseKind::Sqlite })
    }

    fn postgres(text: &str) -> Result<Self, String> {
        // The parser's own message would be safe, but not the text: it may hold a password.
        let mut url = Url::parse(text).map_err(|wrong| {
            format!(
                "is not a valid URL ({wrong}); write postgres://user:password@host:5432/database, with special \
                     characters of the password percent-encoded"
            )
        })?;
        if url.path().len() < 2 {
            return Err("names no database; add it after the host: postgres://user@host:5432/keywright".to_owned());
        }
        let original = url.clone();
        if url.password().is_some() {
            // Cannot fail: a URL that has a password can have another.
            let _ = url.set_password(Some(MASK));
        }
        if url.query().is_some() {
            let hide = |name: &str| matches!(name, "password" | "sslpassword");
            let pairs = original.query_pairs().map(|(k, v)| if hide(&k) { (k, MASK.into()) } else { (k, v) });
            url.query_pairs_mut().clear().extend_pairs(pairs);
        }
        Ok(Self { url: text.to_owned().into(), shown: url.into(), kind: DatabaseKind::Postgres })
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        let text = "sqlite://data/keywright.db";
        Self { url: text.to_owned().into(), shown: text.to_owned(), kind: DatabaseKind::Sqlite }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// The error never repeats the text, which may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            Self::sqlite(text, path)
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::postgres(text)
        } else {
            Err("begins with neither sqlite:// nor postgres://, the two databases that Keywright runs on".to_owned())
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

/// An address that user-entered targets may reach although it is not a public one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressAllow {
    Net(IpNet),
    /// `host` is in lower case; an IPv6 address is without its brackets.
    HostPort {
        host: String,
        port: u16,
    },
}

impl FromStr for EgressAllow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a network like 10.0.0.0/8 nor an address like vault.internal:8200");
        if text.contains('/') {
            return text.parse().map(Self::Net).map_err(|_| wrong());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if is_host_name(host) => host.to_ascii_lowercase(),
            None => return Err(wrong()),
        };
        Ok(Self::HostPort { host, port })
    }
}

impl fmt::Display for EgressAllow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => write!(f, "{net}"),
            Self::HostPort { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::HostPort { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A network of proxies; one address stands for itself.
pub(super) fn proxy(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("`{text}` is neither a network like 10.0.0.0/8 nor an address"))
}

/// An origin as browsers send it, so that it can be compared as text.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "`{text}` is not an origin: write https://portal.example.com, with a port where it is not the usual one and \
             nothing after it; `*` is not taken"
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let origin = url.origin().ascii_serialization();
    if matches!(url.scheme(), "http" | "https") && origin == text { Ok(origin) } else { Err(wrong()) }
}

/// Letters, digits, `-`, `_` and dots between non-empty parts; also covers IPv4 addresses.
fn is_host_name(text: &str) -> bool {
    let part =
        |p: &str| !p.is_empty() && p.len() <= 63 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    text.len() <= 253 && text.split('.').all(part)
}
