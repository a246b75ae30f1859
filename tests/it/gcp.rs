//! The inventory of Google Cloud against the double of our own, whose every request and answer is held against Google's discovery
//! documents, asked the same as Google's client; and, for listing alone, against an emulator that others wrote.

use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{Observed, ProviderKind, ScopeId},
    provider::{Connection, Gate, ProviderError, Target},
    setup::config::EgressAllow,
};
use keywright_tests::rig::{GcpCall, GcpDouble, GcpListing, PROJECT, Rig, reads_google_value};
use keywright_worker::providers::{egress::EgressGuard, gcp::Gcp, http::Sleeper};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

const SECRET: &str = "gcp.secretmanager.secret";
const KEY: &str = "gcp.iam.serviceAccountKey";

/// Adds up what it was asked to wait.
#[derive(Default)]
struct NoWait(Mutex<Duration>);

#[async_trait]
impl Sleeper for NoWait {
    async fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

fn gcp() -> Gcp {
    let loopback = EgressGuard::new(&[EgressAllow::Net("127.0.0.0/8".parse().unwrap())]);
    Gcp::new(Arc::new(loopback), None).with_token("ya29.of-the-worker".to_owned().into())
}

async fn open(gcp: &Gcp, url: &str, project: &str) -> Connection {
    let target = Target {
        provider: ProviderKind::Gcp,
        external_id: project.to_owned(),
        regions: Vec::new(),
        settings: json!({"endpoint": url}),
        auth_mode: "ambient".to_owned(),
    };
    gcp.connect(&target, None, Gate::open()).await.unwrap()
}

fn scope(kind: &str) -> ScopeId {
    ScopeId { region: "global".to_owned(), kind: kind.to_owned() }
}

/// Every page of a scope.
async fn list(connection: &Connection, kind: &str) -> Result<Vec<Observed>, ProviderError> {
    let mut assets = Vec::new();
    let mut page = connection.inventory.list(&scope(kind), None).await?;
    loop {
        assert_eq!(page.warnings, []);
        assets.append(&mut page.assets);
        match page.next {
            Some(next) => page = connection.inventory.list(&scope(kind), Some(&next)).await?,
            None => return Ok(assets),
        }
    }
}

fn names(assets: &[Observed]) -> BTreeSet<&str> {
    let names: BTreeSet<&str> = assets.iter().map(|asset| asset.external_id.as_str()).collect();
    assert_eq!(names.len(), assets.len(), "an asset was listed twice");
    names
}

fn count(calls: &[GcpCall], method: &str) -> usize {
    calls.iter().filter(|call| call.method.as_deref() == Some(method)).count()
}

async fn filled(rig: &Rig) -> (GcpDouble, GcpListing) {
    let double = rig.google().await.unwrap();
    double.pages_of(10).await.unwrap();
    let listing = rig.seed_google(double.url(), 25, 12).await.unwrap();
    (double, listing)
}

#[tokio::test]
async fn what_google_s_own_client_lists_is_found_with_its_details_and_no_value_is_read() {
    let Some(rig) = Rig::find() else { return };
    let (double, listing) = filled(&rig).await;
    // Google's client, too, did nothing that its documents do not allow
    let before = double.calls().unwrap().len();
    let connection = open(&gcp(), double.url(), PROJECT).await;
    let secrets = list(&connection, SECRET).await.unwrap();
    let keys = list(&connection, KEY).await.unwrap();
    assert_eq!(names(&secrets), listing.secrets.keys().map(String::as_str).collect());
    assert_eq!(names(&keys), listing.keys.keys().map(String::as_str).collect());
    assert_eq!((secrets.len(), keys.len()), (25, 24));
    for key in &keys {
        assert_eq!(key.attributes["keyType"], listing.keys[&key.external_id].as_str());
        assert_eq!(
            key.expires_at.is_some_and(|at| at.to_rfc3339().starts_with("9999-12-31")),
            key.attributes["keyType"] == "USER_MANAGED"
        );
        assert_eq!((key.relations.len(), key.created_at.is_some()), (1, true));
    }
    let of = |asset: &Observed| asset.name.strip_prefix("app-").unwrap().parse::<u32>().unwrap();
    for secret in &secrets {
        let number = of(secret);
        assert_eq!(secret.tags["owner"], format!("team-{}", number % 7));
        assert_eq!(secret.relations.len(), usize::from(number % 5 == 1));
        assert_eq!(secret.attributes.contains_key("nextRotationTime"), number % 5 == 2);
        assert_eq!(secret.expires_at.is_some(), number % 5 == 3);
    }
    let details = connection.details.as_ref().unwrap();
    for secret in secrets {
        let detailed = details.complete(&scope(SECRET), secret).await.unwrap();
        let known = &listing.secrets[&detailed.asset.external_id];
        assert_eq!(
            (detailed.warnings, detailed.asset.attributes["versionCount"].as_u64()),
            (vec![], Some(known.versions.len() as u64))
        );
        assert_eq!(detailed.asset.enabled, Some(known.versions.values().any(|state| state == "ENABLED")));
        let created = known.created.as_deref().map(|text| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        assert_eq!(detailed.asset.last_rotated_at, created);
    }
    let projects = connection.accounts.as_ref().unwrap().list().await.unwrap();
    let ids: Vec<&str> = projects.iter().map(|project| project.external_id.as_str()).collect();
    assert_eq!(ids, listing.projects);
    assert_eq!((projects[0].name.as_str(), projects[0].state.as_str()), ("Acme Prod", "ACTIVE"));

    let calls = double.calls().unwrap().split_off(before);
    assert_eq!(count(&calls, "secretmanager.projects.secrets.list"), 3);
    assert_eq!(count(&calls, "iam.projects.serviceAccounts.list"), 2);
    assert_eq!(count(&calls, "iam.projects.serviceAccounts.keys.list"), 12);
    assert!(!calls.iter().any(reads_google_value), "{calls:?}");
    // the journal would tell of one
    let newest = rig.read_google_value(double.url(), listing.secrets.keys().nth(1).unwrap()).await.unwrap();
    assert!(newest["payload"]["data"].is_string());
    assert_eq!(double.calls().unwrap().split_off(before).iter().filter(|call| reads_google_value(call)).count(), 1);
}

#[tokio::test]
async fn what_the_discovery_documents_do_not_know_is_a_violation() {
    let Some(rig) = Rig::find() else { return };
    let double = rig.google().await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let project = format!("{}/v1/projects/{PROJECT}", double.url());
    for path in ["/secrets?pagesize=3", "/secretz", "/secrets?pageSize=x", "/secrets/a/versions/1/access"] {
        let answer = client.get(format!("{project}{path}")).bearer_auth("x").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{path}");
    }
    for body in
        [json!({"replication": {"automatic": {}}, "colour": "red"}), json!({"rotation": {"rotationPeriod": "a month"}})]
    {
        let made =
            client.post(format!("{project}/secrets?secretId=a")).bearer_auth("x").json(&body).send().await.unwrap();
        assert_eq!(made.status().as_u16(), 400, "{body}");
    }
    assert_eq!(double.journal().unwrap().iter().filter(|call| call.violation.is_some()).count(), 6);
    assert!(double.calls().is_err());
}

#[tokio::test]
async fn the_role_that_is_shipped_is_enough_and_each_permission_of_it_is_needed() {
    let Some(rig) = Rig::find() else { return };
    let (double, listing) = filled(&rig).await;
    let role = include_str!("../../docs/permissions/gcp-discovery.yaml");
    let permissions: Vec<&str> = role.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    assert_eq!(permissions.len(), 5);
    let connection = open(&gcp(), double.url(), PROJECT).await;
    let (details, accounts) = (connection.details.as_ref().unwrap(), connection.accounts.as_ref().unwrap());
    double.role(&permissions).await.unwrap();
    let secrets = list(&connection, SECRET).await.unwrap();
    assert_eq!((secrets.len(), list(&connection, KEY).await.unwrap().len()), (25, listing.keys.len()));
    assert_eq!(details.complete(&scope(SECRET), secrets[0].clone()).await.unwrap().warnings, []);
    assert_eq!(accounts.list().await.unwrap().len(), 3);
    let denied = |listed: Result<Vec<Observed>, ProviderError>| match listed {
        Err(ProviderError::Denied { permission, .. }) => permission.unwrap(),
        other => panic!("{other:?}"),
    };
    for missing in &permissions {
        let others: Vec<&str> = permissions.iter().copied().filter(|permission| permission != missing).collect();
        double.role(&others).await.unwrap();
        match *missing {
            "secretmanager.secrets.list" => assert_eq!(denied(list(&connection, SECRET).await), *missing),
            "secretmanager.versions.list" => {
                let warnings = details.complete(&scope(SECRET), secrets[0].clone()).await.unwrap().warnings;
                assert!(warnings[0].detail.contains(missing), "{warnings:?}");
            }
            // a search finds what may be seen
            "resourcemanager.projects.get" => assert_eq!(accounts.list().await.unwrap(), []),
            _ => assert_eq!(denied(list(&connection, KEY).await), *missing),
        }
    }
    double.calls().unwrap();
}

#[tokio::test]
async fn a_page_token_that_expired_and_a_project_that_is_not_there_are_told_as_such() {
    let Some(rig) = Rig::find() else { return };
    let (double, _) = filled(&rig).await;
    let connection = open(&gcp(), double.url(), PROJECT).await;
    let first = connection.inventory.list(&scope(SECRET), None).await.unwrap();
    double.expire_tokens().await.unwrap();
    let second = connection.inventory.list(&scope(SECRET), first.next.as_deref()).await;
    assert_eq!(second, Err(ProviderError::PageExpired));
    let nowhere = open(&gcp(), double.url(), "acme-nowhere").await;
    for kind in [SECRET, KEY] {
        let error = list(&nowhere, kind).await.unwrap_err();
        assert!(matches!(&error, ProviderError::Rejected { code, .. } if code == "project_not_found"), "{error}");
    }
    let off = json!([{"status": 403, "reason": "SERVICE_DISABLED", "metadata": {"service": "iam.googleapis.com"}}]);
    double.rules(off).await.unwrap();
    let error = list(&connection, KEY).await.unwrap_err();
    assert!(matches!(&error, ProviderError::Rejected { code, .. } if code == "api_disabled"), "{error}");
}

#[tokio::test]
async fn a_429_is_waited_out_whether_the_header_or_the_body_tells_for_how_long() {
    let Some(rig) = Rig::find() else { return };
    let (double, listing) = filled(&rig).await;
    let slow = |method: &str, more: Value| {
        let mut rule = json!({"method": method, "times": 3, "status": 429});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    double
        .rules(json!([
            slow("secretmanager.projects.secrets.list", json!({"retryAfter": 1})),
            slow("iam.projects.serviceAccounts.list", json!({"retryDelay": "1s"})),
        ]))
        .await
        .unwrap();
    let timer = Arc::new(NoWait::default());
    let connection = open(&gcp().with_sleeper(timer.clone()), double.url(), PROJECT).await;
    assert_eq!(list(&connection, SECRET).await.unwrap().len(), listing.secrets.len());
    assert_eq!(list(&connection, KEY).await.unwrap().len(), listing.keys.len());
    let waited = *timer.0.lock().unwrap();
    assert!(waited >= Duration::from_secs(6) && waited < Duration::from_secs(7), "{waited:?}");
    assert_eq!(double.calls().unwrap().iter().filter(|call| call.status == 429).count(), 6);
}

#[tokio::test]
async fn an_emulator_of_others_agrees_on_what_secrets_there_are() {
    let Some(rig) = Rig::find() else { return };
    let drongo = rig.drongo().await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for name in ["one", "two"] {
        let made = client
            .post(format!("{}/v1/projects/{PROJECT}/secrets?secretId={name}", drongo.url()))
            .json(&json!({"replication": {"automatic": {}}, "labels": {"owner": "payments"}}))
            .send()
            .await
            .unwrap();
        assert!(made.status().is_success(), "{}", made.status());
    }
    let secrets = list(&open(&gcp(), drongo.url(), PROJECT).await, SECRET).await.unwrap();
    let mut found: Vec<&str> = secrets.iter().map(|secret| secret.name.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["one", "two"]);
    assert!(secrets.iter().all(|secret| secret.tags["owner"] == "payments"));
}
