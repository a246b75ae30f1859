//! Long because every cloud is in it once, as the claims see it.
//!
//! The claims of `keywright_worker::providers::conformance`, tried with every cloud: which hold, and which differences are known.

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use keywright_jobs::{
    domain::inventory::{ProviderKind, ScopeId},
    provider::{Connection, Gate, ProviderError, Providers, Target},
    setup::{clock::Clock, config::EgressAllow},
};
use keywright_tests::rig::{
    ACCESS_KEY_ID, ACCOUNT, AwsSeed, GcpDouble, PROJECT, Proxy, Rig, SECRET_ACCESS_KEY, Server,
};
use keywright_worker::providers::{
    aws::Aws,
    conformance::{Claim, Subject, Verdict, try_all},
    egress::EgressGuard,
    gcp::Gcp,
    http::Sleeper,
    local::{Limits, Local, Surroundings},
    memory::{MemoryCloud, secret, secrets_in},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Tries all claims: those that are named here as untried cannot be tried, the others that are named do not hold, and all others do.
async fn holds(subject: &dyn Subject, untried: &[Claim], differing: &[Claim]) {
    let verdicts = try_all(subject).await;
    let told: Vec<String> = verdicts.iter().map(|(claim, verdict)| format!("{claim:?} {verdict}")).collect();
    let of = |wanted: fn(&Verdict) -> bool| -> BTreeSet<Claim> {
        verdicts.iter().filter(|(_, verdict)| wanted(verdict)).map(|(claim, _)| *claim).collect()
    };
    assert_eq!(of(|verdict| matches!(verdict, Verdict::Broken(_))), differing.iter().copied().collect(), "{told:#?}");
    assert_eq!(of(|verdict| *verdict == Verdict::Untried), untried.iter().copied().collect(), "{told:#?}");
}

/// Lets no time pass.
struct NoWait;

#[async_trait]
impl Sleeper for NoWait {
    async fn sleep(&self, _: Duration) {}
}

fn loopback() -> Arc<EgressGuard> {
    Arc::new(EgressGuard::new(&[EgressAllow::Net("127.0.0.0/8".parse().unwrap())]))
}

fn target(provider: ProviderKind, account: &str, regions: &[&str], settings: Value) -> Target {
    Target {
        provider,
        external_id: account.to_owned(),
        regions: regions.iter().map(|&region| region.to_owned()).collect(),
        settings,
        auth_mode: "ambient".to_owned(),
    }
}

struct Memory(MemoryCloud);

#[async_trait]
impl Subject for Memory {
    async fn connect(&self, gate: Gate) -> Result<Connection, ProviderError> {
        self.0.connect(&target(ProviderKind::Aws, "one", &[], json!({})), None, gate).await
    }

    fn contents(&self) -> BTreeMap<ScopeId, BTreeSet<String>> {
        let names = |region: &str| (0..25).map(|number| format!("memory:{region}:secret-{number:04}")).collect();
        ["north", "south"].map(|region| (secrets_in(region), names(region))).into()
    }

    fn scope(&self) -> ScopeId {
        secrets_in("north")
    }

    /// There is no field for one.
    fn values(&self) -> Vec<String> {
        Vec::new()
    }

    fn dates(&self) -> Option<(String, BTreeMap<&'static str, String>)> {
        let dates = [("created_at", "1969-12-31T23:59:59"), ("expires_at", "9999-12-31T23:59:59")];
        Some(("memory:north:secret-0007".to_owned(), dates.map(|(field, date)| (field, date.to_owned())).into()))
    }

    fn requests(&self) -> Option<usize> {
        Some(self.0.journal().len())
    }

    async fn expire_pages(&self) -> Option<()> {
        self.0.expire_pages();
        Some(())
    }

    async fn deny(&self) -> Option<String> {
        self.0.deny("memory:List", |call| call.lists("north"));
        Some("memory:List".to_owned())
    }

    async fn throttle(&self, retry_after: Duration) -> Option<()> {
        self.0.throttle(u32::MAX, retry_after, |call| call.lists("north"));
        Some(())
    }

    async fn change(&self) -> Option<String> {
        let mut asset = secret(&self.scope(), "secret-0003");
        asset.attributes.insert("size".to_owned(), json!(7));
        let id = asset.external_id.clone();
        self.0.put("one", &self.scope(), asset);
        Some(id)
    }

    async fn heal(&self) {
        self.0.heal();
    }
}

#[tokio::test]
async fn the_cloud_in_memory_conforms() {
    let cloud = MemoryCloud::default();
    cloud.page_size(10);
    cloud.details(Duration::from_secs(3600));
    for region in ["north", "south"] {
        cloud.put_secrets("one", &secrets_in(region), 25);
    }
    let mut dated = secret(&secrets_in("north"), "secret-0007");
    dated.created_at = Some("1969-12-31T23:59:59Z".parse().unwrap());
    dated.expires_at = Some("9999-12-31T23:59:59Z".parse().unwrap());
    cloud.put("one", &secrets_in("north"), dated);
    holds(&Memory(cloud), &[Claim::NoValue], &[]).await;
}

/// Certificates and a key in files.
struct Files {
    folder: tempfile::TempDir,
    ids: BTreeSet<String>,
    key: String,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut key, mut ids) = (String::new(), BTreeSet::new());
        for number in 0..7 {
            let path = folder.path().join(format!("{number}.pem"));
            let (pem, private, fingerprint) = certificate(&format!("host-{number}"));
            std::fs::write(&path, pem).unwrap();
            ids.insert(format!("{}#{fingerprint}", path.display()));
            key = private;
        }
        std::fs::write(folder.path().join("server.key"), &key).unwrap();
        Self { folder, ids, key }
    }
}

/// A certificate that ends in the year 9999, its key and its fingerprint.
fn certificate(name: &str) -> (String, String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(1960, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let made = params.self_signed(&key).unwrap();
    let fingerprint = digest(&SHA256, made.der()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (made.pem(), key.serialize_pem(), fingerprint)
}

#[async_trait]
impl Subject for Files {
    async fn connect(&self, gate: Gate) -> Result<Connection, ProviderError> {
        let mut surroundings = Surroundings::new(Arc::new(|_: &str| None), Clock::system());
        surroundings.limits = Limits { places: 3, entries: 3, ..Limits::default() };
        Local::connect(&json!({"paths": [self.folder.path()]}), gate, loopback(), surroundings)
    }

    fn contents(&self) -> BTreeMap<ScopeId, BTreeSet<String>> {
        BTreeMap::from([(self.scope(), self.ids.clone())])
    }

    fn scope(&self) -> ScopeId {
        ScopeId { region: "local".to_owned(), kind: "local.file.certificate".to_owned() }
    }

    fn values(&self) -> Vec<String> {
        self.key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
    }

    fn dates(&self) -> Option<(String, BTreeMap<&'static str, String>)> {
        let dates = [("not_before", "1960-01-01T00:00:00"), ("expires_at", "9999-12-31T00:00:00")];
        let first = self.ids.first().cloned()?;
        Some((first, dates.map(|(field, date)| (field, date.to_owned())).into()))
    }
}

#[tokio::test]
async fn local_files_conform() {
    let files = Files::new();
    // a folder knows no page that expires, denies single files with a warning and does not throttle; its lists tell everything, and
    // what is changed there is another certificate
    let untried = [
        Claim::ExpiredPage,
        Claim::NamedPermission,
        Claim::RetryAfter,
        Claim::VanishedAsset,
        Claim::VisibleChange,
        Claim::StableDetails,
    ];
    holds(&files, &untried, &[]).await;
}

const REGIONS: &[&str] = &["us-east-1", "eu-west-1"];
const SECRET: &str = "aws.secretsmanager.secret";

/// An emulator of AWS behind the recording proxy.
struct Emulated {
    aws: Aws,
    proxy: Proxy,
    upstream: Server,
    contents: BTreeMap<ScopeId, BTreeSet<String>>,
}

impl Emulated {
    async fn new(rig: &Rig, upstream: Server, seed: &AwsSeed<'_>) -> Self {
        let listing = rig.seed_aws(upstream.url(), seed).await.unwrap();
        let mut contents = BTreeMap::new();
        let kinds = [
            (SECRET, &listing.secrets),
            ("aws.ssm.parameter", &listing.parameters),
            ("aws.acm.certificate", &listing.certificates),
            ("aws.kms.key", &listing.keys),
        ];
        for (kind, by_region) in kinds {
            for (region, arns) in by_region {
                let scope = ScopeId { region: region.clone(), kind: kind.to_owned() };
                contents.insert(scope, arns.iter().cloned().collect());
            }
        }
        let aws = Aws::new(loopback()).with_access_key(ACCESS_KEY_ID, SECRET_ACCESS_KEY.to_owned().into());
        let proxy = rig.proxy(upstream.url()).await.unwrap();
        Self { aws: aws.with_sleeper(Arc::new(NoWait)), proxy, upstream, contents }
    }

    async fn rules(&self, rules: Value) {
        self.proxy.rules(rules).await.unwrap();
    }
}

#[async_trait]
impl Subject for Emulated {
    async fn connect(&self, gate: Gate) -> Result<Connection, ProviderError> {
        let target = target(ProviderKind::Aws, ACCOUNT, REGIONS, json!({"endpoint": self.proxy.url()}));
        self.aws.connect(&target, None, gate).await
    }

    fn contents(&self) -> BTreeMap<ScopeId, BTreeSet<String>> {
        self.contents.clone()
    }

    fn scope(&self) -> ScopeId {
        ScopeId { region: "eu-west-1".to_owned(), kind: SECRET.to_owned() }
    }

    /// As `aws_seed.py` makes them.
    fn values(&self) -> Vec<String> {
        (100..200).map(|number| format!("value-{number}")).collect()
    }

    fn requests(&self) -> Option<usize> {
        Some(self.proxy.calls().unwrap().len())
    }

    async fn expire_pages(&self) -> Option<()> {
        let code = "InvalidNextTokenException";
        self.rules(json!([{"operation": "ListSecrets", "status": 400, "code": code, "message": "expired"}])).await;
        Some(())
    }

    async fn deny(&self) -> Option<String> {
        self.rules(json!([{"operation": "ListSecrets", "region": "eu-west-1", "status": 403}])).await;
        Some("secretsmanager:ListSecrets".to_owned())
    }

    async fn throttle(&self, retry_after: Duration) -> Option<()> {
        let seconds = retry_after.as_secs();
        self.rules(json!([{"operation": "ListSecrets", "status": 429, "retryAfter": seconds}])).await;
        Some(())
    }

    async fn change(&self) -> Option<String> {
        let arn = self.contents[&self.scope()].first().cloned()?;
        let signed = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260520/eu-west-1/secretsmanager/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = client
            .post(self.upstream.url())
            .header("X-Amz-Target", "secretsmanager.TagResource")
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("Authorization", signed)
            .body(json!({"SecretId": arn, "Tags": [{"Key": "changed", "Value": "yes"}]}).to_string());
        let answer = asked.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        Some(arn)
    }

    async fn heal(&self) {
        self.rules(json!([])).await;
    }
}

#[tokio::test]
async fn aws_conforms_over_moto() {
    let Some(rig) = Rig::find() else { return };
    let seed =
        AwsSeed { secrets: 230, certificates: 4, parameters: 25, keys: 4, regions: REGIONS, ..AwsSeed::default() };
    let subject = Emulated::new(&rig, rig.moto().await.unwrap(), &seed).await;
    // nothing that AWS lists as a secret has a date that we choose
    holds(&subject, &[Claim::Dates], &[]).await;
}

#[tokio::test]
async fn aws_conforms_over_roto() {
    let Some(rig) = Rig::find() else { return };
    let seed = AwsSeed { secrets: 230, regions: REGIONS, ..AwsSeed::default() };
    let subject = Emulated::new(&rig, rig.roto().await.unwrap(), &seed).await;
    // it has neither ACM nor IAM's credential report, which a look at everything asks for
    holds(&subject, &[Claim::Dates], &[Claim::NoValue]).await;
}

/// Our double of Google Cloud.
struct Google {
    gcp: Gcp,
    double: GcpDouble,
    contents: BTreeMap<ScopeId, BTreeSet<String>>,
}

fn global(kind: &str) -> ScopeId {
    ScopeId { region: "global".to_owned(), kind: kind.to_owned() }
}

fn gcp() -> Gcp {
    let gcp = Gcp::new(loopback(), None).with_token("ya29.of-the-worker".to_owned().into());
    gcp.with_sleeper(Arc::new(NoWait))
}

#[async_trait]
impl Subject for Google {
    async fn connect(&self, gate: Gate) -> Result<Connection, ProviderError> {
        let target = target(ProviderKind::Gcp, PROJECT, &[], json!({"endpoint": self.double.url()}));
        self.gcp.connect(&target, None, gate).await
    }

    fn contents(&self) -> BTreeMap<ScopeId, BTreeSet<String>> {
        self.contents.clone()
    }

    fn scope(&self) -> ScopeId {
        global("gcp.secretmanager.secret")
    }

    /// As `gcp_client.py` makes them.
    fn values(&self) -> Vec<String> {
        (0..25).flat_map(|number| [format!("value-{number}-"), "ya29.of-the-worker".to_owned()]).collect()
    }

    fn requests(&self) -> Option<usize> {
        Some(self.double.calls().unwrap().len())
    }

    async fn expire_pages(&self) -> Option<()> {
        self.double.expire_tokens().await.unwrap();
        Some(())
    }

    async fn deny(&self) -> Option<String> {
        self.double.role(&["iam.serviceAccounts.list"]).await.unwrap();
        Some("secretmanager.secrets.list".to_owned())
    }

    async fn throttle(&self, retry_after: Duration) -> Option<()> {
        let rule = json!([{"method": "secretmanager.projects.secrets.list", "status": 429, "retryAfter": retry_after.as_secs()}]);
        self.double.rules(rule).await.unwrap();
        Some(())
    }

    async fn heal(&self) {
        self.double.rules(json!([])).await.unwrap();
        let everything = [
            "iam.serviceAccountKeys.list",
            "iam.serviceAccounts.list",
            "resourcemanager.projects.get",
            "secretmanager.secrets.list",
            "secretmanager.versions.list",
        ];
        self.double.role(&everything).await.unwrap();
    }
}

#[tokio::test]
async fn gcp_conforms_over_our_double() {
    let Some(rig) = Rig::find() else { return };
    let double = rig.google().await.unwrap();
    double.pages_of(10).await.unwrap();
    let listing = rig.seed_google(double.url(), 25, 12).await.unwrap();
    let contents = BTreeMap::from([
        (global("gcp.secretmanager.secret"), listing.secrets.keys().cloned().collect()),
        (global("gcp.iam.serviceAccountKey"), listing.keys.keys().cloned().collect()),
    ]);
    // a list of secrets does not tell that their versions changed, and of dates it tells those that Google makes
    holds(&Google { gcp: gcp(), double, contents }, &[Claim::VisibleChange, Claim::Dates], &[]).await;
}

#[test]
fn a_claim_that_does_not_hold_is_found_out() {
    // a suite that cannot fail shows nothing: an asset that is listed twice, and one that nobody knows of
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let cloud = MemoryCloud::default();
        cloud.page_size(10);
        for region in ["north", "south"] {
            cloud.put_secrets("one", &secrets_in(region), 25);
        }
        let twice = secret(&secrets_in("north"), "secret-0001");
        cloud.put_at("one", &secrets_in("north"), "zzz", twice);
        cloud.put("one", &secrets_in("south"), secret(&secrets_in("south"), "unknown"));
        let verdicts = try_all(&Memory(cloud)).await;
        let broken = |claim| matches!(verdicts[&claim], Verdict::Broken(_));
        assert!(broken(Claim::CompletePages) && broken(Claim::Dates), "{verdicts:?}");
        assert_eq!(verdicts[&Claim::StableScopes], Verdict::Holds);
    });
}
