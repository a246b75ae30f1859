//! The one list of settings.
//!
//! Long because each setting is its row here and nowhere else.

use super::{
    Config, LONGEST_GRACE, oidc,
    parse::{
        by_kind, http_url, joined, label, limit, list, log_filter, log_format, master_key, number, organisation,
        parsed, previous_key, shown_by_kind, to,
    },
    values::{DatabaseUrl, LicenceKey, LogFormat, MASK, origin, proxy},
};
use keywright_stores::{kms::WrongName, objects::WrongPlace};
use std::{path::PathBuf, time::Duration};

/// Names the TOML file.
pub(super) const CONFIG_FILE: &str = "KEYWRIGHT_CONFIG";

/// Which binary acts on a setting. Both accept all of them, so that one environment serves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    Both,
    Api,
    Worker,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The environment variable.
    pub name: &'static str,
    pub meaning: &'static str,
    /// What holds when it is not given, as a person would say it.
    pub default: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    pub used_by: UsedBy,
    /// Understands the text; the error says what is wrong and what to write, and repeats nothing secret.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value in force with secrets masked; `None` = not set.
    pub(super) show: fn(&Config) -> Option<String>,
}

impl Key {
    /// Its name in the TOML file, e.g. `lease_seconds`.
    pub fn file_name(&self) -> String {
        self.name.strip_prefix("KEYWRIGHT_").unwrap_or(self.name).to_ascii_lowercase()
    }
}

/// Every setting there is, in the order in which they are documented and shown.
pub const KEYS: &[Key] = &[
    Key {
        name: CONFIG_FILE,
        meaning: "a TOML file with the settings of this table; the environment wins over it",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.config_file, Some(PathBuf::from(text))),
        show: |c| c.config_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "DATABASE_URL",
        meaning: "`sqlite://path/keywright.db` or `postgres://user:password@host:5432/database`",
        default: "sqlite://data/keywright.db",
        secret: false, // only its password is, and `show` masks that
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.database_url, text.parse::<DatabaseUrl>()?),
        show: |c| Some(c.database_url.to_string()),
    },
    Key {
        name: "KEYWRIGHT_DB_POOL",
        meaning: "most database connections that one process keeps for its work, 2 to 500",
        default: "10",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.db_pool, number(text, 2..=500)?),
        show: |c| Some(c.db_pool.to_string()),
    },
    Key {
        name: "KEYWRIGHT_DATA_DIR",
        meaning: "directory of everything that is kept on disk, such as the local master key",
        default: "data",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.data_dir, PathBuf::from(text)),
        show: |c| Some(c.data_dir.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_MASTER_KEY",
        meaning: "key-encryption key: 32 bytes in base64. Required with PostgreSQL (here, as a file, or from a KMS)",
        default: "with SQLite: made in the data directory as `master.key`, mode 0600",
        secret: true,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.master_key, Some(master_key(text)?.into())),
        show: |c| c.master_key.as_ref().map(|_| MASK.to_owned()),
    },
    Key {
        name: "KEYWRIGHT_MASTER_KEY_FILE",
        meaning: "a file that holds the key-encryption key, instead of `KEYWRIGHT_MASTER_KEY`",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.master_key_file, Some(PathBuf::from(text))),
        show: |c| c.master_key_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_MASTER_KEY_KMS",
        meaning: "the key that wraps the key-encryption key, instead of `KEYWRIGHT_MASTER_KEY`: `aws-kms:arn:aws:kms:…` or \
                  `gcp-kms:projects/…/cryptoKeys/…`",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.master_key_kms, Some(text.parse().map_err(|wrong: WrongName| wrong.to_string())?)),
        show: |c| c.master_key_kms.as_ref().map(ToString::to_string),
    },
    Key {
        name: "KEYWRIGHT_MASTER_KEY_PREVIOUS",
        meaning: "the key-encryption key before this one, until `keywright-api rewrap` has ended: base64, `file:/path`, or as for \
                  `KEYWRIGHT_MASTER_KEY_KMS`",
        default: "–",
        secret: true,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.master_key_previous, Some(previous_key(text)?)),
        show: |c| c.master_key_previous.as_ref().map(|_| MASK.to_owned()),
    },
    Key {
        name: "KEYWRIGHT_LISTEN",
        meaning: "address and port of the API",
        default: "127.0.0.1:8080",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.listen, parsed(text, "an IP address with a port", "127.0.0.1:8080")?),
        show: |c| Some(c.listen.to_string()),
    },
    Key {
        name: "KEYWRIGHT_WORKER_LISTEN",
        meaning: "address and port of a worker's `/health`, `/ready` and `/metrics`",
        default: "off",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| {
            let address = || parsed(text, "an IP address with a port, or off", "127.0.0.1:8081").map(Some);
            to(&mut c.worker_listen, if text == "off" { None } else { address()? })
        },
        show: |c| Some(c.worker_listen.map_or_else(|| "off".to_owned(), |address| address.to_string())),
    },
    Key {
        name: "KEYWRIGHT_WORKER_METRICS_OPEN",
        meaning: "`true` = a worker answers `/metrics` to whoever reaches it, not only over a loopback address",
        default: "false",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.worker_metrics_open, parsed(text, "true or false", "true")?),
        show: |c| Some(c.worker_metrics_open.to_string()),
    },
    Key {
        name: "KEYWRIGHT_ORGANISATION",
        meaning: "the organisation's name on evidence packages",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.organisation, organisation(text)?),
        show: |c| Some(c.organisation.clone()).filter(|name| !name.is_empty()),
    },
    Key {
        name: "KEYWRIGHT_EVIDENCE_STORE",
        meaning: "where evidence packages are kept: `local` (in the data directory, which API and workers must share), \
                  `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`",
        default: "local",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.evidence_place, text.parse().map_err(|wrong: WrongPlace| wrong.to_string())?),
        show: |c| Some(c.evidence_place.to_string()),
    },
    Key {
        name: "KEYWRIGHT_EVIDENCE_SIGNED_URL_SECONDS",
        meaning: "downloads are sent on to an address in the bucket that is good for so many seconds, 10 to 3600; 0 = the API sends \
                  the file itself, as it does from a local store",
        default: "0",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| {
            let seconds = number(text, 0..=3600)?;
            if (1..10).contains(&seconds) {
                return Err("must be 0 or from 10 to 3600, e.g. 300".to_owned());
            }
            to(&mut c.evidence_signed_urls, (seconds > 0).then(|| Duration::from_secs(seconds)))
        },
        show: |c| Some(c.evidence_signed_urls.map_or(0, |life| life.as_secs()).to_string()),
    },
    Key {
        name: "KEYWRIGHT_ADMIN_PASSWORD",
        meaning: "password of the first user `admin`; used only while there is no user",
        default: "one is made and printed once",
        secret: true,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.admin_password, Some(text.to_owned().into())),
        show: |c| c.admin_password.as_ref().map(|_| MASK.to_owned()),
    },
    Key {
        name: "KEYWRIGHT_LICENCE_PUBLIC_KEY",
        meaning: "the licence issuer's Ed25519 public key, as PEM or base64; without one nothing is gated",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.licence_public_key, Some(text.parse::<LicenceKey>()?)),
        show: |c| c.licence_public_key.map(|key| key.to_string()),
    },
    Key {
        name: "KEYWRIGHT_LICENCE_FILE",
        meaning: "the licence, looked at again every minute; with a key and without a licence the tier is STARTER",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.licence_file, Some(PathBuf::from(text))),
        show: |c| c.licence_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_WORKER_CONCURRENCY",
        meaning: "jobs that one worker runs at once, 1 to 1024",
        default: "cores × 4",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.worker_concurrency, number(text, 1..=1024)?),
        show: |c| Some(c.worker_concurrency.to_string()),
    },
    Key {
        name: "KEYWRIGHT_WORKER_LABELS",
        meaning: "names of this worker, separated by commas; a local subscription's `settings.local.worker` asks for one",
        default: "the host name",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.worker_labels, list(text, label)?),
        show: |c| Some(c.worker_labels.join(",")),
    },
    Key {
        name: "KEYWRIGHT_KIND_LIMITS",
        meaning: "most jobs of a kind that all workers together run at once, e.g. `discovery.scope=8,discovery.scan=2`, each 1 to 100000; kinds that are not named have no limit; the same for every worker",
        default: "–",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.limits.kinds, by_kind(text, 1..=100_000)?),
        show: |c| shown_by_kind(&c.limits.kinds),
    },
    Key {
        name: "KEYWRIGHT_SUBSCRIPTION_LIMIT",
        meaning: "most jobs of each subscription that all workers together run at once, up to 100000; 0 = no limit; the same for every worker",
        default: "0",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.limits.subscription, Some(number(text, 0..=100_000)?).filter(|most| *most > 0)),
        show: |c| Some(c.limits.subscription.unwrap_or(0).to_string()),
    },
    Key {
        name: "KEYWRIGHT_QUOTA_PERCENT",
        meaning: "the part of every rate in docs/QUOTAS.md that all workers together use, 1 to 100; the rest is left to others who call the same accounts; the same for every worker",
        default: "100",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.quota_percent, number(text, 1..=100)?),
        show: |c| Some(c.quota_percent.to_string()),
    },
    Key {
        name: "KEYWRIGHT_LEASE_SECONDS",
        meaning: "how long an attempt may go unrenewed before another worker takes the job, 1 to 3600 s; the same everywhere",
        default: "8",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.lease, Duration::from_secs(number(text, 1..=3600)?)),
        show: |c| Some(c.lease.as_secs().to_string()),
    },
    Key {
        name: "KEYWRIGHT_SHUTDOWN_GRACE_SECONDS",
        meaning: "how long a stopping process waits for what is under way before it gives it back, 0 to 15 s: it ends within 30 s",
        default: "10",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.shutdown_grace, Duration::from_secs(number(text, 0..=LONGEST_GRACE.as_secs())?)),
        show: |c| Some(c.shutdown_grace.as_secs().to_string()),
    },
    Key {
        name: "KEYWRIGHT_RETENTION_JOBS_DAYS",
        meaning: "days for which ended jobs, their scans and schedules' runs are kept, up to 36500; 0 = for ever; where it is not given, the setting `retention.jobsDays` goes before the default",
        default: "30",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| {
            c.retention.by_settings = false;
            to(&mut c.retention.days, number(text, 0..=36500)?)
        },
        show: |c| Some(c.retention.days.to_string()),
    },
    Key {
        name: "KEYWRIGHT_RETENTION_KIND_DAYS",
        meaning: "days for kinds whose ended jobs are kept longer or shorter, e.g. `discovery.scan=90`, up to 36500; 0 = for ever; parts are kept as long as the job that they are parts of",
        default: "–",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.retention.kinds, by_kind(text, 0..=36500)?),
        show: |c| shown_by_kind(&c.retention.kinds),
    },
    Key {
        name: "KEYWRIGHT_RATE_LIMIT_PER_MINUTE",
        meaning: "requests per minute and principal (per address before login); 0 = no limit",
        default: "60",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.rate_limit_per_minute, limit(text)?),
        show: |c| Some(c.rate_limit_per_minute.unwrap_or(0).to_string()),
    },
    Key {
        name: "KEYWRIGHT_RATE_LIMIT_PER_HOUR",
        meaning: "requests per hour and principal (per address before login); 0 = no limit",
        default: "1000",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.rate_limit_per_hour, limit(text)?),
        show: |c| Some(c.rate_limit_per_hour.unwrap_or(0).to_string()),
    },
    Key {
        name: "KEYWRIGHT_TRUSTED_PROXIES",
        meaning: "networks of proxies, separated by commas, whose `X-Forwarded-For` or `Forwarded` tells the client's address",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.trusted_proxies, list(text, proxy)?),
        show: |c| joined(&c.trusted_proxies),
    },
    Key {
        name: "KEYWRIGHT_CORS_ORIGINS",
        meaning: "origins, separated by commas, whose pages may read answers with a bearer token, e.g. `https://portal.example.com`",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.cors_origins, list(text, origin)?),
        show: |c| joined(&c.cors_origins),
    },
    Key {
        name: "KEYWRIGHT_TLS_CERT",
        meaning: "a file with the certificate chain (PEM) with which the API ends TLS itself; read again when it changes",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.tls_cert, Some(PathBuf::from(text))),
        show: |c| c.tls_cert.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_TLS_KEY",
        meaning: "the file of that certificate's private key (PEM)",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.tls_key, Some(PathBuf::from(text))),
        show: |c| c.tls_key.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_COOKIE_SECURE",
        meaning: "`false` = plain cookie names that browsers also send over http; warned of at start",
        default: "true",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.cookie_secure, parsed(text, "true or false", "true")?),
        show: |c| Some(c.cookie_secure.to_string()),
    },
    Key {
        name: "KEYWRIGHT_LOGIN_THRESHOLD",
        meaning: "failed logins of one account from one address before there are delays, 1 to 1000; 0 = no delays",
        default: "5",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.login.threshold, number(text, 0..=1000)?),
        show: |c| Some(c.login.threshold.to_string()),
    },
    Key {
        name: "KEYWRIGHT_LOGIN_WINDOW_SECONDS",
        meaning: "after so long without a failed login the count begins anew, 600 to 86400 s",
        default: "900",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.login.window, Duration::from_secs(number(text, 600..=86400)?)),
        show: |c| Some(c.login.window.as_secs().to_string()),
    },
    Key {
        name: "KEYWRIGHT_LOGIN_LOCK_AFTER",
        meaning: "failed logins after which an account is locked for a window, wherever its user is; 0 = never, since anybody could lock out anybody",
        default: "0",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.login.lock_after, number(text, 0..=10_000)?),
        show: |c| Some(c.login.lock_after.to_string()),
    },
    Key {
        name: "KEYWRIGHT_SIGNING_KEY_DAYS",
        meaning: "days after which a new key signs access tokens, up to 3650; 0 = only by `keywright-api rotate-signing-key`",
        default: "30",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.signing_key_days, number(text, 0..=3650)?),
        show: |c| Some(c.signing_key_days.to_string()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_ISSUER",
        meaning: "issuer of the OpenID provider for single sign-on, spelled just as in its tokens; `https`, or `http` on this machine",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.issuer, Some(text.parse()?)),
        show: |c| c.oidc.issuer.as_ref().map(ToString::to_string),
    },
    Key {
        name: "KEYWRIGHT_OIDC_CLIENT_ID",
        meaning: "the client as which Keywright is registered at the provider",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.client_id, Some(oidc::plain(text, "a client id")?)),
        show: |c| c.oidc.client_id.clone(),
    },
    Key {
        name: "KEYWRIGHT_OIDC_CLIENT_SECRET",
        meaning: "that client's secret, if it has one",
        default: "–",
        secret: true,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.client_secret, Some(text.to_owned().into())),
        show: |c| c.oidc.client_secret.as_ref().map(|_| MASK.to_owned()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_CLIENT_SECRET_FILE",
        meaning: "a file that holds the client's secret, instead of `KEYWRIGHT_OIDC_CLIENT_SECRET`",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.client_secret_file, Some(PathBuf::from(text))),
        show: |c| c.oidc.client_secret_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_REDIRECT_URL",
        meaning: "where the provider sends browsers back to, as registered there: `https://keywright.example.com/api/auth/sso/callback`",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.redirect_url, Some(oidc::redirect_url(text)?)),
        show: |c| c.oidc.redirect_url.as_ref().map(ToString::to_string),
    },
    Key {
        name: "KEYWRIGHT_OIDC_SCOPES",
        meaning: "what is asked of the provider, separated by spaces; `openid` is always among them",
        default: "openid profile email",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.scopes, oidc::scopes(text)?),
        show: |c| Some(c.oidc.scopes.join(" ")),
    },
    Key {
        name: "KEYWRIGHT_OIDC_GROUPS_CLAIM",
        meaning: "the claim of the ID token that names the user's groups; a path with dots leads into objects, as `realm_access.roles`",
        default: "groups",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.groups_claim, oidc::plain(text, "the name of a claim")?),
        show: |c| Some(c.oidc.groups_claim.clone()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_ROLES",
        meaning: "which role the members of a group get, as `kw-admins=admin,staff=viewer`, separated by semicolons where a group's name has a comma; the highest one counts",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.roles, text.parse()?),
        show: |c| Some(c.oidc.roles.to_string()).filter(|text| !text.is_empty()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_DEFAULT_ROLE",
        meaning: "the role of users in none of these groups; without one they may not come in",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.default_role, Some(oidc::role(text)?)),
        show: |c| c.oidc.default_role.map(|role| role.to_string()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_NAME_CLAIM",
        meaning: "the claim of the ID token after which a new user is called",
        default: "preferred_username",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.name_claim, oidc::plain(text, "the name of a claim")?),
        show: |c| Some(c.oidc.name_claim.clone()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_CREATE_USERS",
        meaning: "`false` = only who came in before may come in, nobody new",
        default: "true",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.create_users, parsed(text, "true or false", "true")?),
        show: |c| Some(c.oidc.create_users.to_string()),
    },
    Key {
        name: "KEYWRIGHT_OIDC_EMAIL_DOMAINS",
        meaning: "domains, separated by commas: only users whose ID token has a verified e-mail address of one of them may come in",
        default: "–",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.email_domains, oidc::domains(text)?),
        show: |c| joined(&c.oidc.email_domains),
    },
    Key {
        name: "KEYWRIGHT_OIDC_NAME",
        meaning: "how the provider is called on pages that people see",
        default: "single sign-on",
        secret: false,
        used_by: UsedBy::Api,
        set: |c, text| to(&mut c.oidc.name, oidc::shown_name(text)?),
        show: |c| Some(c.oidc.name.clone()),
    },
    Key {
        name: "KEYWRIGHT_EGRESS_ALLOW",
        meaning: "networks and `host:port`, separated by commas, that user-entered addresses may reach beside public ones",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.egress_allow, list(text, str::parse)?),
        show: |c| joined(&c.egress_allow),
    },
    Key {
        name: "KEYWRIGHT_LOG",
        meaning: "log filter in the syntax of `tracing`, e.g. `info,keywright_jobs=debug`",
        default: "info",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.log, log_filter(text)?),
        show: |c| Some(c.log.clone()),
    },
    Key {
        name: "KEYWRIGHT_LOG_FORMAT",
        meaning: "`text` or `json`",
        default: "text",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.log_format, log_format(text)?),
        show: |c| {
            Some(match c.log_format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            })
        },
    },
    Key {
        name: "KEYWRIGHT_OTLP_ENDPOINT",
        meaning: "address of an OpenTelemetry receiver (OTLP over HTTP, protobuf) that spans are sent to, e.g. `http://127.0.0.1:4318`",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.otlp_endpoint, Some(http_url(text)?)),
        show: |c| c.otlp_endpoint.as_ref().map(ToString::to_string),
    },
    Key {
        name: "KEYWRIGHT_GCP_ENDPOINT",
        meaning: "address to use instead of Google Cloud's own",
        default: "–",
        secret: false,
        used_by: UsedBy::Both,
        set: |c, text| to(&mut c.gcp_endpoint, Some(http_url(text)?)),
        show: |c| c.gcp_endpoint.as_ref().map(ToString::to_string),
    },
    Key {
        name: "KEYWRIGHT_AZURE_VAULT_ENDPOINT",
        meaning: "address to use instead of Azure Key Vault's own",
        default: "–",
        secret: false,
        used_by: UsedBy::Worker,
        set: |c, text| to(&mut c.azure_vault_endpoint, Some(http_url(text)?)),
        show: |c| c.azure_vault_endpoint.as_ref().map(ToString::to_string),
    },
];

/// [`KEYS`] as the table of `docs/OPERATIONS.md`.
pub fn markdown_table() -> String {
    let row = |key: &Key| {
        let (name, file, meaning, default) = (key.name, key.file_name(), key.meaning, key.default);
        let used_by = match key.used_by {
            UsedBy::Both => "both",
            UsedBy::Api => "API",
            UsedBy::Worker => "worker",
        };
        format!("| `{name}` | `{file}` | {meaning} | {default} | {used_by} |\n")
    };
    let head = "| variable | in the file | meaning | default | used by |\n| --- | --- | --- | --- | --- |\n".to_owned();
    // The file cannot name itself.
    head + &KEYS.iter().map(row).collect::<String>().replace("| `config` |", "| – |")
}
