//! The AWS inventory against emulators that others wrote, asked the same as boto3.

use async_trait::async_trait;
use futures::future::try_join_all;
use keywright_jobs::{
    domain::inventory::{Observed, ProviderKind, ScopeId},
    provider::{Gate, Inventory, ProviderError, Target},
    setup::config::EgressAllow,
};
use keywright_tests::rig::{ACCESS_KEY_ID, ACCOUNT, AwsListing, AwsSeed, Rig, SECRET_ACCESS_KEY, reads_value};
use keywright_worker::providers::{aws::Aws, egress::EgressGuard, http::Sleeper};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

const REGIONS: &[&str] = &["us-east-1", "eu-west-1", "ap-southeast-2"];
const SECRET: &str = "aws.secretsmanager.secret";
const CERTIFICATE: &str = "aws.acm.certificate";
const PARAMETER: &str = "aws.ssm.parameter";
const KEY: &str = "aws.kms.key";
const ACCESS_KEY: &str = "aws.iam.accessKey";
const SERVER_CERTIFICATE: &str = "aws.iam.serverCertificate";

/// Adds up what it was asked to wait.
#[derive(Default)]
struct NoWait(Mutex<Duration>);

#[async_trait]
impl Sleeper for NoWait {
    async fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

/// A guard that lets the emulators be reached.
fn loopback() -> Arc<EgressGuard> {
    Arc::new(EgressGuard::new(&[EgressAllow::Net("127.0.0.0/8".parse().unwrap())]))
}

fn aws() -> Aws {
    Aws::new(loopback()).with_access_key(ACCESS_KEY_ID, SECRET_ACCESS_KEY.to_owned().into())
}

fn target(url: &str, regions: &[&str]) -> Target {
    Target {
        provider: ProviderKind::Aws,
        external_id: ACCOUNT.to_owned(),
        regions: regions.iter().map(|&region| region.to_owned()).collect(),
        settings: json!({"endpoint": url}),
        auth_mode: "ambient".to_owned(),
    }
}

async fn open(aws: &Aws, target: &Target) -> Box<dyn Inventory> {
    aws.connect(target, None, Gate::open()).await.unwrap().inventory
}

fn scope(region: &str, kind: &str) -> ScopeId {
    ScopeId { region: region.to_owned(), kind: kind.to_owned() }
}

/// Every page of a scope.
async fn list(inventory: &dyn Inventory, scope: &ScopeId) -> Result<Vec<Observed>, ProviderError> {
    let mut assets = Vec::new();
    let mut page = inventory.list(scope, None).await?;
    loop {
        assert_eq!(page.warnings, []);
        assets.append(&mut page.assets);
        match page.next {
            Some(next) => page = inventory.list(scope, Some(&next)).await?,
            None => return Ok(assets),
        }
    }
}

/// Every scope, all at the same time.
async fn scan(inventory: &dyn Inventory) -> Result<BTreeMap<ScopeId, Vec<Observed>>, ProviderError> {
    let scopes = inventory.scopes().await?;
    let listed = try_join_all(scopes.iter().map(|scope| list(inventory, scope))).await?;
    Ok(scopes.into_iter().zip(listed).collect())
}

fn found(scanned: &BTreeMap<ScopeId, Vec<Observed>>) -> BTreeMap<ScopeId, BTreeSet<String>> {
    let ids = |assets: &Vec<Observed>| {
        let ids: BTreeSet<String> = assets.iter().map(|asset| asset.external_id.clone()).collect();
        assert_eq!(ids.len(), assets.len(), "an asset was listed twice");
        ids
    };
    scanned.iter().map(|(scope, assets)| (scope.clone(), ids(assets))).collect()
}

fn expected(listing: &AwsListing) -> BTreeMap<ScopeId, BTreeSet<String>> {
    let of_kind = |kind: &'static str, arns: &BTreeMap<String, Vec<String>>| {
        arns.iter()
            .map(|(region, arns)| (scope(region, kind), arns.iter().cloned().collect()))
            .collect::<Vec<(ScopeId, BTreeSet<String>)>>()
    };
    let of_iam = |kind: &'static str, ids: &[String]| (scope("global", kind), ids.iter().cloned().collect());
    [
        of_kind(SECRET, &listing.secrets),
        of_kind(CERTIFICATE, &listing.certificates),
        of_kind(PARAMETER, &listing.parameters),
        of_kind(KEY, &listing.keys),
        vec![of_iam(ACCESS_KEY, &listing.access_keys), of_iam(SERVER_CERTIFICATE, &listing.server_certificates)],
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test]
async fn a_scan_finds_exactly_what_boto3_lists_and_reads_no_value() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let seed =
        AwsSeed { secrets: 500, certificates: 20, parameters: 160, keys: 7, users: 3, regions: REGIONS, role: None };
    let listing = rig.seed_aws(moto.url(), &seed).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();

    let inventory = open(&aws(), &target(proxy.url(), REGIONS)).await;
    let scanned = scan(&*inventory).await.unwrap();
    assert_eq!(found(&scanned), expected(&listing));
    assert_eq!(scanned.values().map(Vec::len).sum::<usize>(), 500 + 20 + 160 + 7 + 6 + 3);
    for asset in scanned.values().flatten() {
        let ends = [CERTIFICATE, SERVER_CERTIFICATE].contains(&asset.kind.as_str());
        assert_eq!(asset.expires_at.is_some(), ends, "{asset:?}");
        let tells_when_made = [SECRET, ACCESS_KEY, SERVER_CERTIFICATE].contains(&asset.kind.as_str());
        assert!(asset.created_at.is_some() || !tells_when_made, "{asset:?}");
        assert_eq!(asset.tags.len(), if asset.kind == SECRET { 2 } else { 0 }, "{asset:?}");
    }

    let calls = proxy.calls().unwrap();
    let times = |operation: &str| calls.iter().filter(|call| call.operation == operation).count();
    // 167 secrets in two regions and 166 in the third are two pages each; moto gives parameters by tens whatever it is
    // asked for, so 54 and 53 of them are six pages
    for (operation, expected) in [
        ("ListSecrets", 6),
        ("DescribeParameters", 18),
        ("ListCertificates", 3),
        ("ListKeys", 3),
        ("ListAliases", 3),
        ("GenerateCredentialReport", 2),
        ("GetCredentialReport", 1),
        ("ListServerCertificates", 1),
    ] {
        assert_eq!(times(operation), expected, "{operation}");
    }
    assert_eq!(calls.len(), 37, "{calls:?}");
    assert!(!calls.iter().any(reads_value));
    // the proxy would have seen one
    rig.read_value(proxy.url(), "us-east-1", &listing.secrets["us-east-1"][0]).await.unwrap();
    assert_eq!(proxy.calls().unwrap().iter().filter(|call| reads_value(call)).count(), 1);
}

#[tokio::test]
async fn a_second_emulator_agrees_on_secrets() {
    let Some(rig) = Rig::find() else { return };
    let roto = rig.roto().await.unwrap();
    let seed = AwsSeed { secrets: 250, regions: &["eu-west-1"], ..AwsSeed::default() };
    let listing = rig.seed_aws(roto.url(), &seed).await.unwrap();
    let inventory = open(&aws(), &target(roto.url(), &["eu-west-1"])).await;
    let assets = list(&*inventory, &scope("eu-west-1", SECRET)).await.unwrap();
    let arns: BTreeSet<&str> = assets.iter().map(|asset| asset.external_id.as_str()).collect();
    assert_eq!((arns.len(), assets.len()), (250, 250));
    assert_eq!(arns, listing.secrets["eu-west-1"].iter().map(String::as_str).collect());
    // a token that roto never gave
    let error = inventory.list(&scope("eu-west-1", SECRET), Some("garbage")).await.unwrap_err();
    assert_eq!(error, ProviderError::PageExpired);
}

#[tokio::test]
async fn a_region_that_answers_403_is_denied_by_name_and_the_others_are_listed() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    proxy.rules(json!([{"region": "eu-west-1", "status": 403}])).await.unwrap();
    let inventory = open(&aws(), &target(proxy.url(), REGIONS)).await;
    for (kind, permission) in [(SECRET, "secretsmanager:ListSecrets"), (CERTIFICATE, "acm:ListCertificates")] {
        let error = list(&*inventory, &scope("eu-west-1", kind)).await.unwrap_err();
        let ProviderError::Denied { permission: named, .. } = error else { panic!("{error}") };
        assert_eq!(named.as_deref(), Some(permission));
        assert_eq!(list(&*inventory, &scope("us-east-1", kind)).await.unwrap(), []);
    }
    assert_eq!(proxy.calls().unwrap().iter().filter(|call| call.injected).count(), 2, "a refusal is not asked again");
}

#[tokio::test]
async fn a_429_with_retry_after_is_waited_out() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let slow = json!([{"operation": "ListSecrets", "region": "eu-west-1", "times": 3, "status": 429, "retryAfter": 1}]);
    proxy.rules(slow).await.unwrap();
    let timer = Arc::new(NoWait::default());
    let inventory = open(&aws().with_sleeper(timer.clone()), &target(proxy.url(), REGIONS)).await;
    scan(&*inventory).await.unwrap();
    let waited = *timer.0.lock().unwrap();
    // two more for the credential report, which is not ready at once
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
    let statuses: Vec<u16> = proxy
        .calls()
        .unwrap()
        .iter()
        .filter(|call| call.operation == "ListSecrets" && call.region.as_deref() == Some("eu-west-1"))
        .map(|call| call.status)
        .collect();
    assert_eq!(statuses, [429, 429, 429, 200]);
}

#[tokio::test]
async fn a_role_opens_the_account_that_it_belongs_to() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let role = "arn:aws:iam::222222222222:role/audit";
    let seed = AwsSeed { secrets: 3, regions: &["eu-west-1"], role: Some(role), ..AwsSeed::default() };
    let listing = rig.seed_aws(moto.url(), &seed).await.unwrap();
    let own = open(&aws(), &target(moto.url(), &["eu-west-1"])).await;
    assert_eq!(list(&*own, &scope("eu-west-1", SECRET)).await.unwrap(), []);
    let target = Target {
        external_id: "222222222222".to_owned(),
        settings: json!({"endpoint": moto.url(), "roleArn": role, "externalId": "keywright"}),
        auth_mode: "assumeRole".to_owned(),
        ..target(moto.url(), &["eu-west-1"])
    };
    let assets = list(&*open(&aws(), &target).await, &scope("eu-west-1", SECRET)).await.unwrap();
    let arns: BTreeSet<&str> = assets.iter().map(|asset| asset.external_id.as_str()).collect();
    assert_eq!(arns, listing.secrets["eu-west-1"].iter().map(String::as_str).collect());
}

#[tokio::test]
async fn an_access_key_that_iam_does_not_know_is_not_authenticated() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    // from now on moto checks signatures and policies
    let enforce = reqwest::Client::new().post(format!("{}/moto-api/reset-auth", moto.url())).body("0").send();
    assert!(enforce.await.unwrap().status().is_success());
    let inventory = open(&aws(), &target(moto.url(), REGIONS)).await;
    for kind in [SECRET, CERTIFICATE] {
        let error = list(&*inventory, &scope("eu-west-1", kind)).await.unwrap_err();
        assert!(matches!(error, ProviderError::Unauthenticated { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_account_that_does_not_tell_its_regions_is_listed_in_the_usual_ones() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let inventory = open(&aws(), &target(moto.url(), &[])).await;
    let scopes = inventory.scopes().await.unwrap();
    assert!(scopes.contains(&scope("sa-east-1", CERTIFICATE)));
    let page = inventory.list(&scope("us-east-1", SECRET), None).await.unwrap();
    assert_eq!(page.warnings.iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(), ["regions_assumed"]);
}
