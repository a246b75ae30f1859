use super::*;
use secrecy::ExposeSecret;
use std::path::Path;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn machine() -> Machine {
    Machine { host_name: "forge".to_owned(), cores: 3 }
}

fn sources(environment: &[(&str, &str)]) -> Sources {
    Sources::new(environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
}

fn load(environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Loaded::from_sources(&sources(environment), &machine())
}

fn load_file(file: &str, environment: &[(&str, &str)]) -> (Vec<Problem>, Result<Loaded, ConfigError>) {
    let mut sources = sources(environment);
    let problems = sources.add_file(Path::new("kw.toml"), file);
    (problems, Loaded::from_sources(&sources, &machine()))
}

fn wrong_names(result: Result<Loaded, ConfigError>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|problem| problem.name).collect()
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let loaded = load(&[]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.worker_concurrency, 12);
    assert_eq!(config.worker_labels, ["forge"]);
    for key in KEYS {
        let shown = (key.show)(config);
        match key.default {
            "cores × 4" | "the host name" => assert!(shown.is_some(), "{}", key.name),
            "–" => assert_eq!(shown, None, "{}", key.name),
            _ if key.secret => assert_eq!(shown, None, "{}", key.name),
            literal => assert_eq!(shown.as_deref(), Some(literal), "{}", key.name),
        }
    }
    assert!(
        matches!(config.master_keys().current, MasterKeySource::Local(path) if path == Path::new("data/master.key"))
    );
}

#[test]
fn every_setting_can_be_given_and_is_shown_as_given() {
    let given = [
        ("KEYWRIGHT_CONFIG", "/etc/keywright.toml"),
        ("DATABASE_URL", "postgres://kw@db:5432/keywright"),
        ("KEYWRIGHT_DB_POOL", "20"),
        ("KEYWRIGHT_DATA_DIR", "/var/lib/keywright"),
        ("KEYWRIGHT_MASTER_KEY_FILE", "/run/secrets/key"),
        ("KEYWRIGHT_MASTER_KEY_PREVIOUS", KEY),
        ("KEYWRIGHT_LISTEN", "[::1]:9000"),
        ("KEYWRIGHT_WORKER_LISTEN", "0.0.0.0:9001"),
        ("KEYWRIGHT_WORKER_METRICS_OPEN", "true"),
        ("KEYWRIGHT_LICENCE_PUBLIC_KEY", KEY),
        ("KEYWRIGHT_LICENCE_FILE", "/etc/keywright/licence.jwt"),
        ("KEYWRIGHT_WORKER_CONCURRENCY", "7"),
        ("KEYWRIGHT_WORKER_LABELS", "forge,dmz"),
        ("KEYWRIGHT_KIND_LIMITS", "discovery.scan=2,discovery.scope=8"),
        ("KEYWRIGHT_SUBSCRIPTION_LIMIT", "3"),
        ("KEYWRIGHT_QUOTA_PERCENT", "50"),
        ("KEYWRIGHT_LEASE_SECONDS", "30"),
        ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "5"),
        ("KEYWRIGHT_RETENTION_JOBS_DAYS", "90"),
        ("KEYWRIGHT_RETENTION_KIND_DAYS", "discovery.scan=0,discovery.scope=7"),
        ("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "0"),
        ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", "5000"),
        ("KEYWRIGHT_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.7/32,fd00::/8"),
        ("KEYWRIGHT_CORS_ORIGINS", "https://portal.example.com,http://localhost:3000"),
        ("KEYWRIGHT_TLS_CERT", "/etc/keywright/tls.crt"),
        ("KEYWRIGHT_TLS_KEY", "/etc/keywright/tls.key"),
        ("KEYWRIGHT_COOKIE_SECURE", "false"),
        ("KEYWRIGHT_LOGIN_THRESHOLD", "9"),
        ("KEYWRIGHT_LOGIN_WINDOW_SECONDS", "3600"),
        ("KEYWRIGHT_LOGIN_LOCK_AFTER", "100"),
        ("KEYWRIGHT_SIGNING_KEY_DAYS", "7"),
        ("KEYWRIGHT_OIDC_ISSUER", "https://login.example.com"),
        ("KEYWRIGHT_OIDC_CLIENT_ID", "keywright"),
        ("KEYWRIGHT_OIDC_CLIENT_SECRET_FILE", "/run/secrets/oidc"),
        ("KEYWRIGHT_OIDC_REDIRECT_URL", "https://keywright.example.com/api/auth/sso/callback"),
        ("KEYWRIGHT_OIDC_SCOPES", "openid email groups"),
        ("KEYWRIGHT_OIDC_GROUPS_CLAIM", "realm_access.roles"),
        ("KEYWRIGHT_OIDC_ROLES", "kw-admins=admin,staff=viewer"),
        ("KEYWRIGHT_OIDC_DEFAULT_ROLE", "viewer"),
        ("KEYWRIGHT_OIDC_NAME_CLAIM", "email"),
        ("KEYWRIGHT_OIDC_CREATE_USERS", "false"),
        ("KEYWRIGHT_OIDC_EMAIL_DOMAINS", "example.com,example.org"),
        ("KEYWRIGHT_OIDC_NAME", "Example Ltd"),
        ("KEYWRIGHT_ORGANISATION", "Example & Sons, Ltd"),
        ("KEYWRIGHT_EVIDENCE_STORE", "s3://acme-evidence/prod/"),
        ("KEYWRIGHT_EVIDENCE_SIGNED_URL_SECONDS", "300"),
        ("KEYWRIGHT_EGRESS_ALLOW", "10.0.0.0/8,vault.internal:8200,[fd00::1]:443"),
        ("KEYWRIGHT_LOG", "debug,sqlx=warn"),
        ("KEYWRIGHT_LOG_FORMAT", "json"),
        ("KEYWRIGHT_OTLP_ENDPOINT", "http://127.0.0.1:4318/"),
        ("KEYWRIGHT_GCP_ENDPOINT", "http://127.0.0.1:4443/"),
        ("KEYWRIGHT_AZURE_VAULT_ENDPOINT", "https://127.0.0.1:8443/"),
    ];
    let loaded = load(&given).unwrap();
    // a second way to give the key would contradict the first
    for key in KEYS.iter().filter(|key| !key.secret && key.name != "KEYWRIGHT_MASTER_KEY_KMS") {
        let (_, value) = given.iter().find(|(name, _)| *name == key.name).expect(key.name);
        assert_eq!((key.show)(&loaded.config).as_deref(), Some(*value), "{}", key.name);
    }
    assert_eq!(loaded.config.rate_limit_per_minute, None);
}

#[test]
fn all_that_is_wrong_is_named_at_once_and_nothing_secret_is_repeated() {
    let error = load(&[
        ("KEYWRIGHT_LISTEN", "localhost"),
        ("KEYWRIGHT_LEASE_SECONDS", "0"),
        ("KEYWRIGHT_LISTE", "127.0.0.1:1"),
        ("KEYWRIGHT_MASTER_KEY", "hunter2"),
        ("DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("KEYWRIGHT_AZURE_VAULT_ENDPOINT", "http://u:hunter2@x/"),
    ])
    .unwrap_err();
    let text = error.to_string();
    for name in [
        "KEYWRIGHT_LISTEN",
        "KEYWRIGHT_LEASE_SECONDS",
        "KEYWRIGHT_LISTE",
        "KEYWRIGHT_MASTER_KEY",
        "DATABASE_URL",
        "KEYWRIGHT_AZURE_VAULT_ENDPOINT",
    ] {
        assert!(text.contains(&format!("\n  {name}: ")), "{name} is missing in:\n{text}");
    }
    assert_eq!(error.0.len(), 6);
    assert!(!format!("{text}{error:?}").contains("hunter2"));
}

#[test]
fn each_bad_value_is_refused() {
    let bad = [
        ("DATABASE_URL", "sqlite://:memory:"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "postgres://db:5432/"),
        ("DATABASE_URL", "postgres://db:port/x"),
        ("KEYWRIGHT_DB_POOL", "1"),
        ("KEYWRIGHT_LISTEN", "127.0.0.1"),
        ("KEYWRIGHT_WORKER_LISTEN", "on"),
        ("KEYWRIGHT_LICENCE_PUBLIC_KEY", "AAEC"),
        ("KEYWRIGHT_LICENCE_PUBLIC_KEY", "hunter2!"),
        ("KEYWRIGHT_WORKER_CONCURRENCY", "-1"),
        ("KEYWRIGHT_WORKER_LABELS", "a b"),
        ("KEYWRIGHT_KIND_LIMITS", "discovery.scope"),
        ("KEYWRIGHT_KIND_LIMITS", "discovery.scope=0"),
        ("KEYWRIGHT_KIND_LIMITS", "discovery.scop=1"),
        ("KEYWRIGHT_KIND_LIMITS", "discovery.scope=1,discovery.scope=2"),
        ("KEYWRIGHT_SUBSCRIPTION_LIMIT", "-1"),
        ("KEYWRIGHT_QUOTA_PERCENT", "0"),
        ("KEYWRIGHT_QUOTA_PERCENT", "101"),
        ("KEYWRIGHT_LEASE_SECONDS", "3601"),
        ("KEYWRIGHT_LEASE_SECONDS", "8s"),
        ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "16"),
        ("KEYWRIGHT_RETENTION_JOBS_DAYS", "36501"),
        ("KEYWRIGHT_RETENTION_KIND_DAYS", "discovery.scan=36501"),
        ("KEYWRIGHT_RETENTION_KIND_DAYS", "scan=1"),
        ("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "many"),
        ("KEYWRIGHT_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("KEYWRIGHT_TRUSTED_PROXIES", "proxy.internal"),
        ("KEYWRIGHT_CORS_ORIGINS", "*"),
        ("KEYWRIGHT_CORS_ORIGINS", "null"),
        ("KEYWRIGHT_CORS_ORIGINS", "portal.example.com"),
        ("KEYWRIGHT_CORS_ORIGINS", "https://portal.example.com/"),
        ("KEYWRIGHT_CORS_ORIGINS", "https://Portal.example.com"),
        ("KEYWRIGHT_CORS_ORIGINS", "https://portal.example.com:443"),
        ("KEYWRIGHT_COOKIE_SECURE", "1"),
        ("KEYWRIGHT_EGRESS_ALLOW", "10.0.0.0/33"),
        ("KEYWRIGHT_EGRESS_ALLOW", "10.0.0.1"),
        ("KEYWRIGHT_EGRESS_ALLOW", "vault.internal:0"),
        ("KEYWRIGHT_EGRESS_ALLOW", "http://vault:80"),
        ("KEYWRIGHT_EGRESS_ALLOW", "fd00::1:443"),
        ("KEYWRIGHT_LOG", "info,keywright=loud"),
        ("KEYWRIGHT_LOG_FORMAT", "xml"),
        ("KEYWRIGHT_GCP_ENDPOINT", "ftp://x/"),
        ("KEYWRIGHT_MASTER_KEY", "AAAA"),
        ("KEYWRIGHT_MASTER_KEY_KMS", "aws-kms:alias/x"),
        ("KEYWRIGHT_MASTER_KEY_PREVIOUS", "AAAA"),
        ("KEYWRIGHT_MASTER_KEY_PREVIOUS", "gcp-kms:x"),
    ];
    for (name, value) in bad {
        let mut given = vec![(name, value)];
        if value.starts_with("postgres") {
            given.push(("KEYWRIGHT_MASTER_KEY", KEY));
        }
        assert_eq!(wrong_names(load(&given)), [name], "{name}={value}");
    }
}

#[test]
fn an_empty_value_counts_as_not_given() {
    let (problems, loaded) = load_file("worker_listen = \"127.0.0.1:1\"", &[("KEYWRIGHT_WORKER_LISTEN", "")]);
    assert_eq!(problems, []);
    assert_eq!(loaded.unwrap().config.worker_listen.unwrap().port(), 1);
}

#[test]
fn the_environment_wins_over_the_file_and_each_origin_is_told() {
    let file = "listen = \"127.0.0.1:1\"\nlease_seconds = 9\ncookie_secure = false\nKEYWRIGHT_LOG = \"warn\"\n\
                worker_labels = [\"a\", \"b\"]\n";
    let (problems, loaded) = load_file(file, &[("KEYWRIGHT_LISTEN", "127.0.0.1:2")]);
    assert_eq!(problems, []);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.config.listen.port(), 2);
    assert_eq!(loaded.config.lease, Duration::from_secs(9));
    assert_eq!(loaded.config.worker_labels, ["a", "b"]);
    assert!(!loaded.config.cookie_secure);
    let line = |name: &str| {
        let report = loaded.report();
        let line = report.lines().find(|l| l.starts_with(&format!("{name} "))).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("KEYWRIGHT_LISTEN"), ["KEYWRIGHT_LISTEN", "127.0.0.1:2", "environment"]);
    assert_eq!(line("KEYWRIGHT_LOG"), ["KEYWRIGHT_LOG", "warn", "file"]);
    assert_eq!(line("KEYWRIGHT_DATA_DIR"), ["KEYWRIGHT_DATA_DIR", "data", "default"]);
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    let file = "listne = \"x\"\nconfig = \"other.toml\"\nlog = { level = \"info\" }\nlease_seconds = 9\nKEYWRIGHT_LEASE_SECONDS = 9\n";
    let (problems, loaded) = load_file(file, &[]);
    let names: Vec<_> = problems.iter().map(|p| p.name.as_str()).collect();
    // TOML tables are read in the order of their keys.
    assert_eq!(names.len(), 4);
    for name in ["listne in kw.toml", "config in kw.toml", "log in kw.toml", "lease_seconds in kw.toml"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert_eq!(loaded.unwrap().config.lease, Duration::from_secs(9));

    let (_, loaded) = load_file("lease_seconds = 0", &[]);
    assert_eq!(wrong_names(loaded), ["lease_seconds in kw.toml"]);
}

#[test]
fn a_broken_file_is_told_by_line_without_quoting_it() {
    let (problems, _) = load_file("log = \"info\"\nadmin_password = \"hunter2\n", &[]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].text.starts_with("line 2 "), "{}", problems[0].text);
    assert!(!problems[0].text.contains("hunter2"));
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let loaded = load(&[
        ("DATABASE_URL", "postgres://kw:hunter2@db:5432/keywright?sslmode=require&password=hunter2"),
        ("KEYWRIGHT_MASTER_KEY", KEY),
        ("KEYWRIGHT_ADMIN_PASSWORD", "hunter2"),
    ])
    .unwrap();
    let shown = format!("{}{:?}", loaded.report(), loaded);
    assert!(!shown.contains("hunter2") && !shown.contains(KEY), "{shown}");
    assert!(shown.contains("postgres://kw:***@db:5432/keywright?sslmode=require&password=***"), "{shown}");
    assert!(loaded.config.database_url.expose().contains("hunter2"));
    assert!(matches!(loaded.config.master_keys().current, MasterKeySource::Given(key) if key.expose_secret() == KEY));
}

#[test]
fn postgres_needs_one_key_and_only_one() {
    let url = ("DATABASE_URL", "postgres://kw@db/keywright");
    assert_eq!(wrong_names(load(&[url])), ["KEYWRIGHT_MASTER_KEY"]);
    assert_eq!(wrong_names(load(&[url, ("KEYWRIGHT_MASTER_KEY", "AAAA")])), ["KEYWRIGHT_MASTER_KEY"]);
    let file = ("KEYWRIGHT_MASTER_KEY_FILE", "/run/key");
    assert!(load(&[url, file]).is_ok());
    assert_eq!(wrong_names(load(&[url, file, ("KEYWRIGHT_MASTER_KEY", KEY)])), ["KEYWRIGHT_MASTER_KEY"]);
}

#[test]
fn foreign_variables_are_left_alone() {
    assert!(load(&[("KWTEST_VENV", "x"), ("AWS_REGION", "eu-west-1"), ("keywright_listen", "x")]).is_ok());
}

#[test]
fn the_sqlite_file_is_found_in_the_url() {
    let url: DatabaseUrl = "sqlite:///var/lib/kw.db?mode=rwc".parse().unwrap();
    assert_eq!(url.sqlite_path().as_deref(), Some(Path::new("/var/lib/kw.db")));
    assert_eq!(url.kind(), DatabaseKind::Sqlite);
}

#[test]
fn the_documented_table_is_the_one_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("<!-- settings -->\n").unwrap();
    let (documented, _) = rest.split_once("<!-- /settings -->").unwrap();
    let table = markdown_table();
    assert!(documented == table, "replace the table of docs/OPERATIONS.md with:\n\n{table}");
}

#[test]
fn the_key_of_licences_comes_in_every_form_that_openssl_gives_it() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n-----END PUBLIC KEY-----\n";
    let body = "MCowBQYDK2VwAyEAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for text in [pem, body, KEY, KEY.trim_end_matches('=')] {
        let loaded = load(&[("KEYWRIGHT_LICENCE_PUBLIC_KEY", text)]).unwrap();
        assert_eq!(loaded.config.licence_public_key.map(|key| key.to_string()).as_deref(), Some(KEY), "{text}");
    }
    let without = load(&[("KEYWRIGHT_LICENCE_FILE", "licence.jwt")]);
    assert_eq!(wrong_names(without), ["KEYWRIGHT_LICENCE_FILE"]);
    let wrong =
        load(&[("KEYWRIGHT_LICENCE_FILE", "licence.jwt"), ("KEYWRIGHT_LICENCE_PUBLIC_KEY", "hunter2")]).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"));
    assert_eq!(wrong.0.len(), 1);
}
