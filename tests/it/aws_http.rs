//! AWS as a client of the API sees it: an API and a worker as processes, before emulators that others wrote.

use keywright_entities::{audit_outbox, types::Outcome};
use keywright_tests::{
    database::TestDatabase,
    instance::{Instance, aws_environment},
    rig::{ACCOUNT, AwsListing, AwsSeed, Call, Rig, reads_value},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const REGIONS: &[&str] = &["us-east-1", "eu-west-1", "ap-southeast-2"];
const SECRET: &str = "aws.secretsmanager.secret";
const CERTIFICATE: &str = "aws.acm.certificate";
const LISTS: &[&str] = &[
    "DescribeParameters",
    "GenerateCredentialReport",
    "GetCredentialReport",
    "ListAliases",
    "ListCertificates",
    "ListKeys",
    "ListSecrets",
    "ListServerCertificates",
];
const LOOKS: &[&str] = &[
    "DescribeCertificate",
    "DescribeKey",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "GetResourcePolicy",
    "ListResourceTags",
];
/// Three regions of four kinds, and two kinds that have none.
const SCOPES: usize = 3 * 4 + 2;

/// Each test on each database.
macro_rules! on_both_databases {
    ($($test:ident),+) => { mod sqlite { $(
        #[tokio::test]
        async fn $test() {
            let Some(rig) = super::Rig::find() else { return };
            super::$test(rig, super::TestDatabase::sqlite().await).await;
        }
    )+ } mod postgres { $(
        #[tokio::test]
        async fn $test() {
            let (Some(rig), Some(database)) = (super::Rig::find(), super::TestDatabase::postgres().await) else { return };
            super::$test(rig, database).await;
        }
    )+ } };
}

on_both_databases!(
    a_scan_finds_exactly_what_boto3_lists_and_reads_no_value,
    the_policy_that_is_shipped_is_enough_and_reads_no_value,
    a_lack_of_permission_for_details_is_told_once,
    a_region_that_answers_403_makes_the_scan_partial,
    a_429_with_retry_after_costs_no_attempt,
    an_endpoint_on_loopback_is_refused_unless_the_operator_allows_it
);

async fn subscribe(instance: &Instance, settings: Value) -> String {
    let subscription = json!({
        "provider": "aws",
        "externalId": ACCOUNT,
        "name": "emulated",
        "regions": REGIONS,
        "settings": {"aws": settings},
    });
    instance.subscribe(&subscription).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

/// The scopes by region and kind; each must be there once.
async fn scopes(instance: &Instance, job: &Value) -> BTreeMap<(String, String), Value> {
    let listed = instance.scopes(job).await;
    let count = listed.len();
    let scopes: BTreeMap<_, _> =
        listed.into_iter().map(|scope| ((text(&scope["region"]), text(&scope["kind"])), scope)).collect();
    assert_eq!(scopes.len(), count, "a scope is there twice");
    scopes
}

/// Region and ARN of everything in the inventory; each must be there once.
async fn inventory(instance: &Instance, kind: &str) -> BTreeSet<(String, String)> {
    let assets = instance.list(&format!("/api/assets/discovery/assets?type={kind}&limit=100")).await;
    let count = assets.len();
    let found: BTreeSet<_> = assets.iter().map(|asset| (text(&asset["region"]), text(&asset["externalId"]))).collect();
    assert_eq!(found.len(), count, "an asset is there twice");
    found
}

fn of_boto3(arns: &BTreeMap<String, Vec<String>>) -> BTreeSet<(String, String)> {
    arns.iter().flat_map(|(region, arns)| arns.iter().map(|arn| (region.clone(), arn.clone()))).collect()
}

/// How often each operation was called; no call may be anything but one of these.
fn times<'a>(calls: &'a [Call], only: &[&str]) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        assert!(only.contains(&call.operation.as_str()), "{call:?}");
        *counts.entry(call.operation.as_str()).or_default() += 1;
    }
    counts
}

fn listings(calls: &[Call]) -> BTreeMap<&str, usize> {
    times(calls, LISTS)
}

/// Each list of each region once, with other counts of these. moto's report is not ready when it is first asked for.
fn one_page_each(more: &[(&'static str, usize)]) -> BTreeMap<&'static str, usize> {
    let global = ["GenerateCredentialReport", "GetCredentialReport", "ListServerCertificates"];
    let pages = |name: &str| if global.contains(&name) { 1 } else { REGIONS.len() };
    let mut counts: BTreeMap<&str, usize> = LISTS.iter().map(|&name| (name, pages(name))).collect();
    counts.insert("GenerateCredentialReport", 2);
    counts.extend(more.iter().copied());
    counts
}

fn counts(found: u64, created: u64, unchanged: u64) -> Value {
    json!({"found": found, "created": created, "changed": 0, "unchanged": unchanged, "removed": 0, "warnings": 0})
}

async fn a_scan_finds_exactly_what_boto3_lists_and_reads_no_value(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let seed =
        AwsSeed { secrets: 500, certificates: 20, parameters: 9, keys: 6, users: 2, regions: REGIONS, role: None };
    let listing: AwsListing = rig.seed_aws(moto.url(), &seed).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let subscription = subscribe(&instance, json!({})).await;
    // 167 secrets in two regions and 166 in the third are two pages each
    let lists = one_page_each(&[("ListSecrets", 6)]);
    let again = one_page_each(&[("ListSecrets", 6), ("GenerateCredentialReport", 1)]);
    let looks = [
        ("DescribeCertificate", 20),
        ("DescribeKey", 6),
        ("GetKeyPolicy", 6),
        ("GetKeyRotationStatus", 6),
        ("GetResourcePolicy", 500),
        ("ListResourceTags", 6),
    ];
    let all = 500 + 20 + 9 + 6 + 4 + 2;

    let first = instance.scan(&subscription).await;
    assert_eq!(first["state"], "succeeded", "{first}");
    assert_eq!(first["counts"], counts(all, all, 0));
    let everywhere = |ids: &[String]| ids.iter().map(|id| ("global".to_owned(), id.clone())).collect::<BTreeSet<_>>();
    let secrets = &of_boto3(&listing.secrets) | &of_boto3(&listing.parameters);
    assert_eq!(inventory(&instance, "secret").await, secrets);
    let certificates = &of_boto3(&listing.certificates) | &everywhere(&listing.server_certificates);
    assert_eq!(inventory(&instance, "certificate").await, certificates);
    assert_eq!(inventory(&instance, "key").await, of_boto3(&listing.keys));
    assert_eq!(inventory(&instance, "credential").await, everywhere(&listing.access_keys));
    assert_eq!(scopes(&instance, &first).await.len(), SCOPES);
    let calls = proxy.calls().unwrap();
    let expected: BTreeMap<&str, usize> = lists.into_iter().chain(looks).collect();
    assert_eq!(times(&calls, &[LISTS, LOOKS].concat()), expected);

    let keys = instance.list("/api/assets/discovery/assets?type=key&sort=name&limit=100").await;
    let told: Vec<_> = keys.iter().map(|key| key["attributes"]["policyVerdict"].as_str().unwrap()).collect();
    let verdicts = ["cross-account"; 3].into_iter().chain(["own"; 3]);
    assert_eq!(told, verdicts.collect::<Vec<_>>(), "{keys:?}");
    for key in &keys {
        assert_eq!(
            (&key["attributes"]["manager"], &key["attributes"]["state"]),
            (&json!("CUSTOMER"), &json!("Enabled"))
        );
        assert!(text(&key["owner"]).starts_with("team-") && !key["detailedAt"].is_null(), "{key}");
    }

    let second = instance.scan(&subscription).await;
    assert_eq!((&second["state"], &second["counts"]), (&json!("succeeded"), &counts(all, 0, all)));
    let all = proxy.calls().unwrap();
    assert_eq!(listings(&all[calls.len()..]), again, "an unchanged estate is only listed");

    assert!(!all.iter().any(reads_value));
    // the proxy would have seen one
    rig.read_value(proxy.url(), "us-east-1", &listing.secrets["us-east-1"][0]).await.unwrap();
    assert_eq!(proxy.calls().unwrap().iter().filter(|call| reads_value(call)).count(), 1);
}

async fn the_policy_that_is_shipped_is_enough_and_reads_no_value(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let seed = AwsSeed { secrets: 6, certificates: 3, parameters: 3, keys: 3, users: 1, regions: REGIONS, role: None };
    let listing = rig.seed_aws(moto.url(), &seed).await.unwrap();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/permissions/aws-inventory.json");
    let user = rig.aws_user(moto.url(), &policy).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    // from now on moto checks signatures and policies
    let enforce = reqwest::Client::new().post(format!("{}/moto-api/reset-auth", moto.url())).body("0").send();
    assert!(enforce.await.unwrap().status().is_success());
    let environment: Vec<(&str, &str)> = aws_environment(proxy.url())
        .into_iter()
        .map(|(name, value)| match name {
            "AWS_ACCESS_KEY_ID" => (name, user.id.as_str()),
            "AWS_SECRET_ACCESS_KEY" => (name, user.secret.as_str()),
            _ => (name, value),
        })
        .collect();
    let instance = Instance::start(&database, &environment).await;
    let subscription = subscribe(&instance, json!({})).await;
    let job = instance.scan(&subscription).await;
    assert_eq!((&job["state"], &job["counts"]["warnings"]), (&json!("succeeded"), &json!(0)), "{job}");
    // the user that was made for this has a key as well
    assert_eq!(job["counts"]["found"], 6 + 3 + 3 + 3 + (2 + 1) + 1);
    let calls = proxy.calls().unwrap();
    let known = times(&calls, &[LISTS, LOOKS].concat());
    assert!(LOOKS.iter().all(|look| known.contains_key(look)), "{known:?}");
    assert!(calls.iter().all(|call| call.status == 200) && !calls.iter().any(reads_value), "{calls:?}");
    // the same user is refused a value, and the proxy sees it ask
    let (region, secret) = ("us-east-1", &listing.secrets["us-east-1"][0]);
    assert!(!rig.can_read_value(proxy.url(), region, secret, &user).await.unwrap());
    let asked: Vec<u16> =
        proxy.calls().unwrap().iter().filter(|call| reads_value(call)).map(|call| call.status).collect();
    assert_eq!(asked, [403]);
}

async fn a_lack_of_permission_for_details_is_told_once(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let seed = AwsSeed { secrets: 30, keys: 3, users: 2, regions: REGIONS, ..AwsSeed::default() };
    rig.seed_aws(moto.url(), &seed).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let denied = ["GetResourcePolicy", "GetKeyPolicy", "GetCredentialReport"];
    proxy.rules(json!(denied.map(|operation| json!({"operation": operation, "status": 403})))).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let job = instance.scan(&subscribe(&instance, json!({})).await).await;
    // one per scope and permission: three regions of two kinds, and the report
    let expected = (&json!("succeeded"), &json!(30 + 3 + 4 + 2), &json!(7));
    assert_eq!((&job["state"], &job["counts"]["found"], &job["counts"]["warnings"]), expected, "{job}");
    let keys = instance.list("/api/assets/discovery/assets?type=key&limit=100").await;
    assert!(keys.iter().all(|key| key["attributes"]["rotationEnabled"] == false && key["detailedAt"].is_null()));
    let users = instance.list("/api/assets/discovery/assets?type=credential&limit=100").await;
    assert_eq!(users.len(), 4);
}

async fn a_region_that_answers_403_makes_the_scan_partial(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let seed = AwsSeed { secrets: 9, regions: REGIONS, ..AwsSeed::default() };
    rig.seed_aws(moto.url(), &seed).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    proxy.rules(json!([{"service": "secretsmanager", "region": "eu-west-1", "status": 403}])).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let job = instance.scan(&subscribe(&instance, json!({})).await).await;

    assert_eq!(job["state"], "partial", "{job}");
    let ends = json!({"total": SCOPES, "succeeded": SCOPES - 1, "failed": 0, "denied": 1, "canceled": 0, "pending": 0});
    assert_eq!((&job["scopes"], &job["counts"]), (&ends, &counts(6, 6, 0)));
    for ((region, kind), scope) in scopes(&instance, &job).await {
        if (region.as_str(), kind.as_str()) == ("eu-west-1", SECRET) {
            assert_eq!(scope["state"], "failed");
            assert_eq!(scope["reason"]["code"], "permission_denied");
            assert_eq!(scope["reason"]["requiredPermission"], "secretsmanager:ListSecrets");
        } else {
            assert_eq!((&scope["state"], &scope["reason"]), (&json!("succeeded"), &Value::Null), "{region} {kind}");
        }
    }
    let found: Vec<String> = inventory(&instance, "secret").await.into_iter().map(|(region, _)| region).collect();
    assert_eq!(found, ["ap-southeast-2", "ap-southeast-2", "ap-southeast-2", "us-east-1", "us-east-1", "us-east-1"]);
    assert_eq!(proxy.calls().unwrap().iter().filter(|call| call.injected).count(), 1, "a refusal is not asked again");
}

async fn a_429_with_retry_after_costs_no_attempt(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let busy =
        |operation| json!({"operation": operation, "region": "eu-west-1", "times": 2, "status": 429, "retryAfter": 1});
    proxy.rules(json!([busy("ListSecrets"), busy("ListCertificates"), busy("DescribeParameters")])).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let job = instance.scan(&subscribe(&instance, json!({})).await).await;

    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    for (place, scope) in scopes(&instance, &job).await {
        assert_eq!((&scope["state"], &scope["attempt"]), (&json!("succeeded"), &json!(1)), "{place:?}");
    }
    let calls = proxy.calls().unwrap();
    for operation in ["ListSecrets", "ListCertificates", "DescribeParameters"] {
        let answers = calls.iter().filter(|call| call.operation == operation);
        let statuses: Vec<u16> =
            answers.filter(|call| call.region.as_deref() == Some("eu-west-1")).map(|call| call.status).collect();
        assert_eq!(statuses, [429, 429, 200], "{operation}");
    }
}

async fn an_endpoint_on_loopback_is_refused_unless_the_operator_allows_it(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let nowhere = aws_environment("http://127.0.0.1:9");
    let instance = Instance::start(&database, &nowhere).await;
    // an address is refused when it is saved, a name when it is used
    let name = proxy.url().replace("127.0.0.1", "localhost");
    let subscription = subscribe(&instance, json!({"endpoint": name})).await;
    let refused = instance.scan(&subscription).await;
    assert_eq!(refused["state"], "failed", "{refused}");
    let reasons: Vec<Value> =
        instance.scopes(&refused).await.into_iter().map(|scope| scope["reason"]["code"].clone()).collect();
    assert_eq!(reasons, ["address_refused"]);
    assert_eq!(proxy.calls().unwrap(), []);
    let events = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq("egress.refused"));
    let events = events.all(database.database.reader()).await.unwrap();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.outcome, event.subject_id.as_deref()), (Outcome::Denied, Some(subscription.as_str())));
    drop(instance);

    let allowed = [nowhere.as_slice(), &[("KEYWRIGHT_EGRESS_ALLOW", "127.0.0.0/8,::1/128")]].concat();
    let instance = Instance::start(&database, &allowed).await;
    let job = instance.scan(&subscription).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(scopes(&instance, &job).await.keys().filter(|(_, kind)| kind == CERTIFICATE).count(), REGIONS.len());
    assert_eq!(listings(&proxy.calls().unwrap()), one_page_each(&[]));
}
