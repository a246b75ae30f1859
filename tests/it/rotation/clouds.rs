//! Rotations over clouds that others wrote, looked at with the clients that others wrote.

use async_trait::async_trait;
use keywright_jobs::{
    domain::{
        inventory::ProviderKind,
        rotation::{Characters, Method, Terms},
    },
    job::{Done, JobError},
    provider::{Connection, Gate, ProviderError, Providers, StoredCredential, Target},
    rotation::asked::Wish,
    setup::config::EgressAllow,
};
use keywright_tests::{
    database::TestDatabase,
    on_both_databases,
    rig::{ACCESS_KEY_ID, ACCOUNT, PROJECT, Rig, SECRET_ACCESS_KEY},
    rotating::{Elsewhere, Ended, Rotating, at_once},
};
use keywright_worker::providers::{aws::Aws, egress::EgressGuard, gcp::Gcp};
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

on_both_databases!(
    an_access_key_of_aws_is_rotated,
    a_member_of_a_secret_of_aws_is_rotated_and_rolled_back,
    a_secret_of_google_is_rotated_and_rolled_back,
);

/// Both clouds, where the emulators are.
struct Emulated {
    aws: Aws,
    gcp: Gcp,
}

impl Emulated {
    fn new() -> Arc<Self> {
        let loopback = || Arc::new(EgressGuard::new(&[EgressAllow::Net("127.0.0.0/8".parse().unwrap())]));
        Arc::new(Self {
            aws: Aws::new(loopback()).with_access_key(ACCESS_KEY_ID, SECRET_ACCESS_KEY.to_owned().into()),
            gcp: Gcp::new(loopback(), None).with_token("ya29.of-the-worker".to_owned().into()),
        })
    }
}

#[async_trait]
impl Providers for Emulated {
    async fn connect(
        &self,
        target: &Target,
        credential: Option<StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        match target.provider {
            ProviderKind::Aws => self.aws.connect(target, credential.as_ref(), gate).await,
            _ => self.gcp.connect(target, credential.as_ref(), gate).await,
        }
    }
}

fn aws<'a>(endpoint: &'a str, arn: &'a str) -> Elsewhere<'a> {
    let (provider, kind, region) = (ProviderKind::Aws, "aws.secretsmanager.secret", "eu-west-1");
    Elsewhere { provider, account: ACCOUNT, endpoint, kind, region, external_id: arn }
}

/// Works until nothing is left to do but to let the grace time pass.
async fn until_it_drains(trial: &Rotating) {
    let ended = trial.attempt(&CancellationToken::new()).await;
    assert!(matches!(ended, Ended::Recorded(Err(JobError::Snooze { .. }))), "{ended:?}");
}

async fn an_access_key_of_aws_is_rotated(database: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let made = rig.seed_rotation(moto.url()).await.unwrap();
    let arn = made["key"].as_str().unwrap();
    let before = rig.rotation_state(moto.url(), arn).await.unwrap();
    let terms = at_once(Method::AwsAccessKey);
    let trial = Rotating::elsewhere(database, Emulated::new(), aws(moto.url(), arn), terms).await;
    let id = trial.ask().await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}: {:?}", trial.steps(id).await);
    let after = rig.rotation_state(moto.url(), arn).await.unwrap();
    let keys = after["keys"].as_object().unwrap();
    assert_eq!(keys.len(), 1, "the former key is deleted: {after}");
    let (key, status) = keys.iter().next().unwrap();
    assert_eq!(status, "Active");
    assert!(!before["keys"].as_object().unwrap().contains_key(key), "it is a new one");
    let value: Value = serde_json::from_str(after["value"].as_str().unwrap()).unwrap();
    assert_eq!((value["accessKeyId"].as_str(), value["note"].as_str()), (Some(key.as_str()), Some("kept")));
    let row = trial.row(id).await;
    assert_eq!(row.identity.as_deref(), Some(format!("aws:{ACCOUNT}:user/app").as_str()));
    let labels = |wanted: &str| {
        let stages = after["stages"].as_object().unwrap().iter();
        let with = stages.filter(|(_, labels)| labels.as_array().unwrap().iter().any(|label| label == wanted));
        with.map(|(version, _)| version.clone()).collect::<Vec<_>>()
    };
    assert_eq!(labels("AWSCURRENT"), [format!("{id}-1")], "{after}");
    assert_eq!(labels("AWSPENDING"), [] as [String; 0], "{after}");
}

async fn a_member_of_a_secret_of_aws_is_rotated_and_rolled_back(database: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let made = rig.seed_rotation(moto.url()).await.unwrap();
    let arn = made["password"].as_str().unwrap();
    let json_key = Some("password".to_owned());
    let method = Method::Generated { length: 40, characters: Characters::Unreserved, json_key };
    let terms = Terms { grace_seconds: 3600, ..at_once(method) };
    let trial = Rotating::elsewhere(database, Emulated::new(), aws(moto.url(), arn), terms).await;
    let id = trial.ask().await;
    until_it_drains(&trial).await;
    let state = rig.rotation_state(moto.url(), arn).await.unwrap();
    let value: Value = serde_json::from_str(state["value"].as_str().unwrap()).unwrap();
    assert_eq!((value["user"].as_str(), value["password"].as_str().map(str::len)), (Some("u"), Some(40)));
    trial.say(id, &Wish::RollBack).await;
    until_it_drains(&trial).await;
    let state = rig.rotation_state(moto.url(), arn).await.unwrap();
    let value: Value = serde_json::from_str(state["value"].as_str().unwrap()).unwrap();
    assert_eq!(value["password"], "old", "{state}");
    assert_eq!(trial.row(id).await.state, "DRAINING");
}

async fn a_secret_of_google_is_rotated_and_rolled_back(database: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let double = rig.google().await.unwrap();
    rig.seed_google(double.url(), 4, 0).await.unwrap();
    let name = format!("projects/{PROJECT}/secrets/app-0003");
    let read = async || {
        let read = rig.read_google_value(double.url(), &name).await.unwrap();
        (read["name"].as_str().unwrap().to_owned(), read["payload"]["data"].as_str().unwrap().to_owned())
    };
    let (version, old) = read().await;
    assert!(version.ends_with("/versions/3"), "{version}");
    let entry = Elsewhere {
        provider: ProviderKind::Gcp,
        account: PROJECT,
        endpoint: double.url(),
        kind: "gcp.secretmanager.secret",
        region: "global",
        external_id: &name,
    };
    let terms = Terms { grace_seconds: 3600, ..at_once(Method::default()) };
    let trial = Rotating::elsewhere(database, Emulated::new(), entry, terms).await;
    let id = trial.ask().await;
    until_it_drains(&trial).await;
    let (version, new) = read().await;
    assert!(version.ends_with("/versions/4") && new != old, "{version}");
    trial.say(id, &Wish::RollBack).await;
    until_it_drains(&trial).await;
    let (version, back) = read().await;
    assert!(version.ends_with("/versions/5") && back == old, "{version}");
    // after the grace time what was made is switched off, and destroyed after the hold
    trial.pass_the_wait(id).await;
    let ended = trial.to_the_end().await;
    assert!(matches!(ended, Ok(Done::Succeeded)), "{ended:?}");
    let calls = double.calls().unwrap();
    let made = |method: &str| calls.iter().filter(|call| call.method.as_deref() == Some(method)).count();
    let added = "secretmanager.projects.secrets.addVersion";
    assert!(made(added) >= 2, "{:?}", calls.iter().map(|call| &call.method).collect::<Vec<_>>());
    assert_eq!(made("secretmanager.projects.secrets.versions.destroy"), 3, "two by the seed, one by the rotation");
    assert_eq!(read().await.1, old);
}
