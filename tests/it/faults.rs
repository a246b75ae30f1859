//! Real processes, killed, frozen and stopped in the middle of a scan. Three witnesses that cannot agree by accident: what
//! clients were answered, the stub's own journal, the database.

use keywright_entities::{
    asset_version, job,
    types::{JobState, ProviderKind},
};
use keywright_tests::{
    app::{asset_names, eventually, job as read, scan, subscribe},
    database::TestDatabase,
    instance::{Instance, aws_environment},
    on_both_databases,
    process::{Process, Signal},
    stub::SecretsStub,
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    a_killed_workers_scan_is_finished_by_another,
    a_stopped_worker_gives_its_scan_back,
    a_frozen_worker_that_thaws_writes_nothing,
    a_killed_api_loses_nothing_that_it_answered,
);

const PAGES: usize = 6;
const HELD: usize = 3;
const READY: &str = "worker ready";

/// A scan of the stub by workers that are real processes.
struct Scene {
    test: TestDatabase,
    stub: SecretsStub,
    subscription: Uuid,
    scan: Uuid,
}

impl Scene {
    /// The first worker has asked for the page that is held back.
    async fn in_the_middle(test: TestDatabase) -> (Self, Process) {
        let stub = SecretsStub::start(PAGES, HELD).await;
        let subscription =
            subscribe(&test.database, ProviderKind::Aws, "123456789012", json!(["us-east-1"]), json!({})).await;
        let scene = Self { scan: scan(&test.database, None).await, test, stub, subscription };
        let worker = scene.worker().await;
        eventually("the scan is in the middle", async || scene.stub.holds().then_some(())).await;
        (scene, worker)
    }

    async fn worker(&self) -> Process {
        let common = [
            ("DATABASE_URL", self.test.url()),
            ("KEYWRIGHT_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("KEYWRIGHT_LEASE_SECONDS", "2"),
            ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "0"),
        ];
        let mut worker = Process::start("keywright-worker", &[&common[..], &aws_environment(&self.stub.url)].concat());
        worker.logged(READY).await;
        worker
    }

    /// The scope that lists the secrets; certificates are none of the stub's.
    async fn listing(&self) -> job::Model {
        let children = job::children(self.test.database.reader(), self.scan).await.unwrap();
        children.into_iter().find(|child| child.scope_kind.as_deref() == Some("aws.secretsmanager.secret")).unwrap()
    }

    async fn listing_in(&self, state: JobState) -> job::Model {
        eventually("the listing comes to that state", async || {
            let listing = self.listing().await;
            (listing.state == state).then_some(listing)
        })
        .await
    }

    /// Every secret is there, once, and was written once.
    async fn every_secret_once(&self) {
        assert_eq!(asset_names(&self.test.database, self.subscription).await.len(), self.stub.secrets());
        let versions = asset_version::Entity::find()
            .filter(asset_version::Column::SubscriptionId.eq(self.subscription))
            .count(self.test.database.reader());
        assert_eq!(versions.await.unwrap(), self.stub.secrets() as u64);
    }
}

async fn a_killed_workers_scan_is_finished_by_another(test: TestDatabase) {
    let (scene, first) = Scene::in_the_middle(test).await;
    let _second = scene.worker().await;
    first.kill();
    let listing = scene.listing_in(JobState::Succeeded).await;
    assert_eq!((listing.rescues, listing.attempt), (1, 1), "{listing:?}");
    scene.every_secret_once().await;
    let journal = scene.stub.journal();
    assert_eq!(journal.iter().filter(|page| **page == 0).count(), 1, "it went on at its page: {journal:?}");
    let scan = read(&scene.test.database, scene.scan).await;
    assert_eq!((scan.rescues, scan.attempt), (0, 1), "{scan:?}");
}

async fn a_stopped_worker_gives_its_scan_back(test: TestDatabase) {
    let (scene, mut first) = Scene::in_the_middle(test).await;
    first.signal(Signal::Term);
    let ended = first.ended(Duration::from_secs(30)).await;
    assert!(ended.success(), "{ended}; its log:\n{}", first.log());
    let listing = scene.listing().await;
    assert_eq!((listing.state, listing.rescues, listing.lease_until), (JobState::Queued, 0, None), "{listing:?}");
    let _second = scene.worker().await;
    let listing = scene.listing_in(JobState::Succeeded).await;
    assert_eq!((listing.rescues, listing.attempt), (0, 1), "{listing:?}");
    scene.every_secret_once().await;
}

async fn a_frozen_worker_that_thaws_writes_nothing(test: TestDatabase) {
    let (scene, mut first) = Scene::in_the_middle(test).await;
    let _second = scene.worker().await;
    first.signal(Signal::Stop);
    let done = scene.listing_in(JobState::Succeeded).await;
    assert_eq!((done.rescues, done.attempt), (1, 1), "{done:?}");
    first.signal(Signal::Continue);
    scene.stub.release();
    first.logged("the lease was lost").await;
    assert_eq!(scene.listing().await, done, "the frozen worker wrote to a job that was no longer its own");
    scene.every_secret_once().await;
}

async fn a_killed_api_loses_nothing_that_it_answered(test: TestDatabase) {
    let instance = Instance::start(&test, &[]).await;
    instance.worker.signal(Signal::Stop);
    let subscription = json!({"provider": "local", "externalId": "here", "name": "here", "settings": {"local": {"paths": ["/dev/null"]}}});
    instance.subscribe(&subscription).await;
    let mut answered = Vec::new();
    for _ in 0..20 {
        let (status, job) = instance.post("/api/assets/discovery/scan", &json!({"onConflict": "queue"})).await;
        assert_eq!(status.as_u16(), 202, "{job}");
        answered.push(job["id"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    let Instance { api, .. } = instance;
    api.kill();
    for id in answered {
        assert_eq!(read(&test.database, id).await.kind, "discovery.scan");
    }
}
