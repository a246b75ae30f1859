//! AWS as a client of the API sees it: an API and a worker as processes, before emulators that others wrote.

use keywright_entities::{audit_outbox, types::Outcome};
use keywright_tests::{
    database::TestDatabase,
    instance::{Instance, aws_environment},
    rig::{ACCOUNT, AwsListing, AwsSeed, Call, Rig, reads_value},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const REGIONS: &[&str] = &["us-east-1", "eu-west-1", "ap-southeast-2"];
const SECRET: &str = "aws.secretsmanager.secret";
const CERTIFICATE: &str = "aws.acm.certificate";
const LISTS: &[&str] = &["ListSecrets", "ListCertificates"];

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

/// How often each operation was called; no call may be anything but a listing.
fn listings(calls: &[Call]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        assert!(LISTS.contains(&call.operation.as_str()), "{call:?} is no listing");
        *counts.entry(call.operation.as_str()).or_default() += 1;
    }
    counts
}

fn counts(found: u64, created: u64, unchanged: u64) -> Value {
    json!({"found": found, "created": created, "changed": 0, "unchanged": unchanged, "removed": 0, "warnings": 0})
}

async fn a_scan_finds_exactly_what_boto3_lists_and_reads_no_value(rig: Rig, database: TestDatabase) {
    let moto = rig.moto().await.unwrap();
    let seed = AwsSeed { secrets: 500, certificates: 20, regions: REGIONS, role: None };
    let listing: AwsListing = rig.seed_aws(moto.url(), &seed).await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let subscription = subscribe(&instance, json!({})).await;
    // 167 secrets in two regions and 166 in the third are two pages each; certificates one page each
    let expected_calls = BTreeMap::from([("ListSecrets", 6), ("ListCertificates", 3)]);

    let first = instance.scan(&subscription).await;
    assert_eq!(first["state"], "succeeded", "{first}");
    assert_eq!(first["counts"], counts(520, 520, 0));
    assert_eq!(inventory(&instance, "secret").await, of_boto3(&listing.secrets));
    assert_eq!(inventory(&instance, "certificate").await, of_boto3(&listing.certificates));
    assert_eq!(scopes(&instance, &first).await.len(), 6);
    let calls = proxy.calls().unwrap();
    assert_eq!(listings(&calls), expected_calls);

    let second = instance.scan(&subscription).await;
    assert_eq!((&second["state"], &second["counts"]), (&json!("succeeded"), &counts(520, 0, 520)));
    let all = proxy.calls().unwrap();
    assert_eq!(listings(&all[calls.len()..]), expected_calls);

    assert!(!all.iter().any(reads_value));
    // the proxy would have seen one
    rig.read_value(proxy.url(), "us-east-1", &listing.secrets["us-east-1"][0]).await.unwrap();
    assert_eq!(proxy.calls().unwrap().iter().filter(|call| reads_value(call)).count(), 1);
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
    let ends = json!({"total": 6, "succeeded": 5, "failed": 0, "denied": 1, "canceled": 0, "pending": 0});
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
    proxy.rules(json!([busy("ListSecrets"), busy("ListCertificates")])).await.unwrap();
    let instance = Instance::start(&database, &aws_environment(proxy.url())).await;
    let job = instance.scan(&subscribe(&instance, json!({})).await).await;

    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    for (place, scope) in scopes(&instance, &job).await {
        assert_eq!((&scope["state"], &scope["attempt"]), (&json!("succeeded"), &json!(1)), "{place:?}");
    }
    let calls = proxy.calls().unwrap();
    for operation in LISTS {
        let answers = calls.iter().filter(|call| call.operation == *operation);
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
    assert_eq!(listings(&proxy.calls().unwrap()).values().sum::<usize>(), 6);
}
