//! Configuration: environment over an optional TOML file over defaults, checked as a whole before anything starts.
//!
//! [`KEYS`] is the one list of settings; loading, checking, `--check-config` and the table in `docs/OPERATIONS.md` come from
//! it. `AWS_*`, `GOOGLE_APPLICATION_CREDENTIALS` and `AZURE_*` are read by the clouds' own SDKs, not here.

mod keys;
mod oidc;
mod parse;
mod sources;
mod values;

pub use keys::{KEYS, Key, UsedBy, markdown_table};
pub use oidc::{CALLBACK, GroupRoles, Issuer, Oidc};
pub use sources::{Sources, Text, variable};
pub use values::{DatabaseKind, DatabaseUrl, EgressAllow, LicenceKey, LogFormat, MasterKeySource, MasterKeys};

use crate::{evidence::Store, queue::limits::Limits, retention::Retention};
use ipnet::IpNet;
use keywright_stores::{kms::Kms, objects::Place};
use secrecy::SecretString;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;
use url::Url;

/// The longest grace time: with what follows it, a process ends within 30 s of SIGTERM.
pub const LONGEST_GRACE: Duration = Duration::from_secs(15);

/// The exit code of a process that was started with a wrong configuration.
pub const EXIT_BAD_CONFIG: u8 = 2;

/// Every setting of Keywright, typed. Its `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read for settings.
    config_file: Option<PathBuf>,
    pub database_url: DatabaseUrl,
    /// Most connections that a process keeps to the database for its work.
    pub db_pool: u32,
    pub listen: SocketAddr,
    /// Where a worker answers `/health`, `/ready` and `/metrics`; `None` = nowhere.
    pub worker_listen: Option<SocketAddr>,
    /// A worker answers `/metrics` to everybody who reaches it.
    pub worker_metrics_open: bool,
    pub data_dir: PathBuf,
    /// The key-encryption key as given; see [`Config::master_keys`].
    master_key: Option<SecretString>,
    master_key_file: Option<PathBuf>,
    master_key_kms: Option<Kms>,
    master_key_previous: Option<MasterKeySource>,
    /// As evidence packages name whoever runs this instance; empty where it is not said.
    pub organisation: String,
    evidence_place: Place,
    /// For how long an address is good to which downloads are sent; `None` = the API sends files itself.
    pub evidence_signed_urls: Option<Duration>,
    pub admin_password: Option<SecretString>,
    /// Where the licence is; only together with the key.
    pub licence_file: Option<PathBuf>,
    /// The licence issuer's key; `None` = nothing is gated.
    pub licence_public_key: Option<LicenceKey>,
    /// Jobs that a worker runs at once.
    pub worker_concurrency: usize,
    pub worker_labels: Vec<String>,
    /// How many jobs of a kind and of a subscription all workers together may hold.
    pub limits: Limits,
    /// The part of every cloud's rate that may be used, in percent.
    pub quota_percent: u32,
    /// How long an attempt may go unrenewed before another worker takes the job.
    pub lease: Duration,
    /// Requests per minute and principal; `None` = no limit.
    pub rate_limit_per_minute: Option<u32>,
    /// Requests per hour and principal; `None` = no limit.
    pub rate_limit_per_hour: Option<u32>,
    /// Proxies whose word about the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may read answers, as browsers spell them.
    pub cors_origins: Vec<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    pub cookie_secure: bool,
    pub login: LoginLimits,
    /// Days after which another key signs access tokens; 0 = only when the operator says so.
    pub signing_key_days: u32,
    pub egress_allow: Vec<EgressAllow>,
    pub oidc: Oidc,
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`, already checked.
    pub log: String,
    pub log_format: LogFormat,
    /// Where spans are sent; `None` = nowhere.
    pub otlp_endpoint: Option<Url>,
    pub gcp_endpoint: Option<Url>,
    pub azure_vault_endpoint: Option<Url>,
    /// How long a stopping process waits for what is under way before it gives it back.
    pub shutdown_grace: Duration,
    /// For how long ended jobs are kept.
    pub retention: Retention,
}

/// How failed logins are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// The failure of an account from one address after which there is a delay; 0 = never one.
    pub threshold: u32,
    /// After so long without a failure the count begins anew.
    pub window: Duration,
    /// The failure of an account, from wherever, that locks it for a window; 0 = never.
    pub lock_after: u32,
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self { threshold: 5, window: Duration::from_secs(900), lock_after: 0 }
    }
}

/// What the machine contributes to the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub host_name: String,
    pub cores: usize,
}

impl Machine {
    /// Asks the operating system.
    pub fn this() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { host_name: sources::host_name(), cores }
    }
}

impl Config {
    /// What holds when nothing is set.
    pub fn defaults(machine: &Machine) -> Self {
        Self {
            config_file: None,
            database_url: DatabaseUrl::default(),
            db_pool: 10,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            worker_listen: None,
            worker_metrics_open: false,
            data_dir: PathBuf::from("data"),
            master_key: None,
            master_key_file: None,
            master_key_kms: None,
            master_key_previous: None,
            organisation: String::new(),
            evidence_place: Place::Local,
            evidence_signed_urls: None,
            admin_password: None,
            licence_file: None,
            licence_public_key: None,
            worker_concurrency: machine.cores.saturating_mul(4).max(1),
            worker_labels: vec![machine.host_name.clone()],
            limits: Limits::default(),
            quota_percent: 100,
            lease: Duration::from_secs(8),
            rate_limit_per_minute: Some(60),
            rate_limit_per_hour: Some(1000),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            tls_cert: None,
            tls_key: None,
            cookie_secure: true,
            login: LoginLimits::default(),
            signing_key_days: 30,
            egress_allow: Vec::new(),
            oidc: Oidc::default(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            gcp_endpoint: None,
            azure_vault_endpoint: None,
            shutdown_grace: Duration::from_secs(10),
            retention: Retention { days: 30, kinds: BTreeMap::new(), by_settings: true },
        }
    }

    /// The certificate chain and its key, both in PEM, when the API is to end TLS itself.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }

    /// Where evidence packages are kept.
    pub fn evidence_store(&self) -> Store {
        Store::new(self.evidence_place.clone(), &self.data_dir, self.gcp_endpoint.clone())
    }

    /// Where the key-encryption key comes from, and the one before.
    pub fn master_keys(&self) -> MasterKeys {
        let reached = |source: MasterKeySource| match source {
            MasterKeySource::Kms(kms) => MasterKeySource::Kms(kms.at(self.gcp_endpoint.clone())),
            other => other,
        };
        MasterKeys {
            current: reached(self.master_key_source()),
            previous: self.master_key_previous.clone().map(reached),
        }
    }

    fn master_key_source(&self) -> MasterKeySource {
        match (&self.master_key, &self.master_key_file, &self.master_key_kms) {
            (Some(key), ..) => MasterKeySource::Given(key.clone()),
            (None, Some(file), _) => MasterKeySource::File(file.clone()),
            (None, None, Some(kms)) => MasterKeySource::Kms(kms.clone()),
            (None, None, None) => MasterKeySource::Local(self.data_dir.join("master.key")),
        }
    }
}

/// A configuration together with where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    origins: Vec<(&'static Key, Origin)>,
}

/// Where the value in force was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File,
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
        })
    }
}

/// One thing that is wrong, with the setting's name as the operator wrote it. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub name: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", describe(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn describe(problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "one setting is wrong".to_owned(),
        n => format!("{n} settings are wrong"),
    };
    let lines: String = problems.iter().map(|p| format!("  {}: {}\n", p.name, p.text)).collect();
    format!(
        "{count}; nothing was started:\n{lines}Correct this and start again; docs/OPERATIONS.md lists every setting."
    )
}

impl Loaded {
    /// Reads this process's environment, and the file that it names with `KEYWRIGHT_CONFIG`.
    ///
    /// # Errors
    /// [`ConfigError`] names everything that is wrong; the process ends with [`EXIT_BAD_CONFIG`].
    pub fn from_process() -> Result<Self, ConfigError> {
        let (sources, mut problems) = Sources::of_process();
        match Self::from_sources(&sources, &Machine::this()) {
            Ok(loaded) => {
                problems.extend(loaded.unreadable_key_files());
                problems.extend(loaded.config.oidc.unreadable_file());
                if problems.is_empty() { Ok(loaded) } else { Err(ConfigError(problems)) }
            }
            Err(ConfigError(more)) => {
                problems.extend(more);
                Err(ConfigError(problems))
            }
        }
    }

    /// Decides by its arguments alone.
    ///
    /// # Errors
    /// [`ConfigError`] names every wrong value, every unknown name, and every pair of settings that contradict each other.
    pub fn from_sources(sources: &Sources, machine: &Machine) -> Result<Self, ConfigError> {
        let mut config = Config::defaults(machine);
        let mut problems = sources.unknown();
        let mut origins = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let given = sources.get(key);
            origins.push((key, given.as_ref().map_or(Origin::Default, |text| text.origin)));
            if let Some(text) = given
                && let Err(wrong) = (key.set)(&mut config, text.value.trim())
            {
                problems.push(Problem { name: text.name, text: wrong });
            }
        }
        problems.extend(contradictions(&config, sources));
        if problems.is_empty() { Ok(Self { config, origins }) } else { Err(ConfigError(problems)) }
    }

    /// Where the value of the setting of this name was given; for a name that is no setting it is the default.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.iter().find(|(key, _)| key.name == name).map_or(Origin::Default, |(_, origin)| *origin)
    }

    /// What `--check-config` prints: every setting with the value in force, secrets masked, and where it was given.
    pub fn report(&self) -> String {
        let rows: Vec<[String; 3]> = self
            .origins
            .iter()
            .map(|(key, origin)| {
                let shown = (key.show)(&self.config).unwrap_or_else(|| "(not set)".to_owned());
                [key.name.to_owned(), shown, origin.to_string()]
            })
            .collect();
        let width =
            |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        rows.iter().map(|[name, shown, origin]| format!("{name:first$}  {shown:second$}  {origin}\n")).collect()
    }

    fn unreadable_key_files(&self) -> Vec<Problem> {
        let MasterKeys { current, previous } = self.config.master_keys();
        let named = [("KEYWRIGHT_MASTER_KEY_FILE", Some(current)), ("KEYWRIGHT_MASTER_KEY_PREVIOUS", previous)];
        let unreadable = |(name, source): (&str, Option<MasterKeySource>)| {
            let MasterKeySource::File(path) = source? else { return None };
            let wrong = std::fs::File::open(&path).err()?;
            let text = format!("{} cannot be read ({wrong}); name a file that this process may read", path.display());
            Some(Problem { name: name.to_owned(), text })
        };
        named.into_iter().filter_map(unreadable).collect()
    }
}

/// Settings that are right alone but wrong together.
fn contradictions(config: &Config, sources: &Sources) -> Vec<Problem> {
    let problem = |name: &str, text: &str| Problem { name: name.to_owned(), text: text.to_owned() };
    let mut found = Vec::new();
    let forms = [config.master_key.is_some(), config.master_key_file.is_some(), config.master_key_kms.is_some()];
    if forms.into_iter().filter(|given| *given).count() > 1 {
        found.push(problem(
            "KEYWRIGHT_MASTER_KEY",
            "is given in more than one way (KEYWRIGHT_MASTER_KEY, KEYWRIGHT_MASTER_KEY_FILE, KEYWRIGHT_MASTER_KEY_KMS), and only \
             one key can be in force; keep one of them",
        ));
    }
    let key_given = KEYS.iter().any(|key| key.name == "KEYWRIGHT_LICENCE_PUBLIC_KEY" && sources.get(key).is_some());
    if config.licence_file.is_some() && !key_given {
        found.push(problem(
            "KEYWRIGHT_LICENCE_FILE",
            "is given without KEYWRIGHT_LICENCE_PUBLIC_KEY, and only the issuer's key tells whether a licence is genuine; give \
             the key, or remove the file: without either nothing is gated",
        ));
    }
    // One that was given but is malformed has its own problem already.
    let own = |key: &&Key| key.name.starts_with("KEYWRIGHT_MASTER_KEY") && key.name != "KEYWRIGHT_MASTER_KEY_PREVIOUS";
    let given = KEYS.iter().filter(own).any(|key| sources.get(key).is_some());
    if !given && config.database_url.kind() == DatabaseKind::Postgres {
        found.push(problem(
            "KEYWRIGHT_MASTER_KEY",
            "is required with PostgreSQL, because processes on several machines must share one key; make one with \
             `openssl rand -base64 32` and give it here or in a file named by KEYWRIGHT_MASTER_KEY_FILE",
        ));
    }
    for (given, other) in [("KEYWRIGHT_TLS_CERT", "KEYWRIGHT_TLS_KEY"), ("KEYWRIGHT_TLS_KEY", "KEYWRIGHT_TLS_CERT")] {
        let set = |name: &str| KEYS.iter().any(|key| key.name == name && sources.get(key).is_some());
        if set(given) && !set(other) {
            found.push(problem(given, &format!("is given without {other}; TLS needs both, and plain http neither")));
        }
    }
    found.extend(oidc::contradictions(config, sources));
    found
}

#[cfg(test)]
mod tests;
