//! A rotation in this process, attempt by attempt: each may die at any point, and another worker goes on.

use crate::{
    app::{sealing, subscribe, workshop},
    database::TestDatabase,
};
use keywright_entities::{
    asset, clock, job, rotation, rotation_policy, rotation_secret, rotation_step,
    scope::Scope,
    types::{AssetType, JobState, ProviderKind},
};
use keywright_jobs::{
    context::Context,
    domain::rotation::{Method, Terms, Verify},
    job::{Done, JobError},
    kinds::{self, rotation::request},
    pacing::{Budgets, Tally},
    provider::{Providers, Stopped},
    queue::{
        Enqueued, Lease, Requester,
        claim::{self, Capability},
        limits::Limits,
        outcome::{self, Outcome, Reason},
    },
    rotation::asked::{self, Wish},
    setup::{clock::Clock, database::Database, ids},
};
use keywright_worker::providers::memory::MemoryCloud;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, sea_query::Expr,
};
use serde_json::json;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ACCOUNT: &str = "123456789012";
const LEASE: Duration = Duration::from_secs(60);

/// The entry that is rotated.
pub const ENTRY: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-1";
/// Whose key it holds, where it holds one.
pub const USER: &str = "app";

/// A cloud, a database, and an entry to rotate.
pub struct Rotating {
    pub cloud: MemoryCloud,
    pub database: TestDatabase,
    pub asset: Uuid,
    pub policy: Uuid,
    providers: Arc<dyn Providers>,
}

/// An entry of a real cloud's.
pub struct Elsewhere<'a> {
    pub provider: ProviderKind,
    pub account: &'a str,
    pub endpoint: &'a str,
    pub kind: &'a str,
    pub region: &'a str,
    pub external_id: &'a str,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended {
    /// The worker died.
    Cut,
    Recorded(Result<Done, JobError>),
}

impl Rotating {
    /// The entry must be in the cloud already.
    pub async fn new(database: TestDatabase, cloud: MemoryCloud, terms: Terms) -> Self {
        cloud.account(ACCOUNT);
        let db = &database.database;
        let subscription = subscribe(db, ProviderKind::Aws, ACCOUNT, json!([]), json!({})).await;
        let asset = put_asset(db, subscription, ENTRY).await;
        let policy = put_policy(db, &terms).await;
        Self { providers: Arc::new(cloud.clone()), cloud, database, asset, policy }
    }

    /// The same over a cloud that others wrote.
    pub async fn elsewhere(
        database: TestDatabase,
        providers: Arc<dyn Providers>,
        entry: Elsewhere<'_>,
        terms: Terms,
    ) -> Self {
        let db = &database.database;
        let settings = json!({entry.provider.as_str(): {"endpoint": entry.endpoint}});
        let subscription = subscribe(db, entry.provider, entry.account, json!([]), settings).await;
        let asset = put_asset_of(db, subscription, &entry).await;
        let policy = put_policy(db, &terms).await;
        Self { cloud: MemoryCloud::default(), database, asset, policy, providers }
    }

    /// What people ask of a rotation under way.
    pub async fn say(&self, id: Uuid, wish: &Wish) -> rotation::Model {
        let write = self.database.database.begin().await.expect("a transaction");
        let asked = asked::ask(&*write, &Scope::All, id, wish, &Requester::system()).await.expect("it is taken");
        write.commit().await.expect("it is durable");
        asked
    }

    /// Asks for the rotation; tells its id.
    pub async fn ask(&self) -> Uuid {
        let write = self.database.database.begin().await.expect("a transaction");
        let asked = request::rotate_unplanned(&write, &Scope::All, Requester::system(), self.asset, self.policy).await;
        let (Enqueued::New(job) | Enqueued::Open(job)) = asked.expect("it is taken");
        write.commit().await.expect("it is durable");
        job.id
    }

    /// Claims the job and works at it until it ends, must wait or `cut` is cancelled; then, as after a kill, another may claim it.
    pub async fn attempt(&self, cut: &CancellationToken) -> Ended {
        let cloud = self.cloud.clone();
        let told = self.database.another().await.telling(move |statement| {
            let text = &statement.sql;
            if text.starts_with("UPDATE \"rotation\" ") || text.contains("FROM \"rotation\" WHERE \"rotation\".\"id\"")
            {
                cloud.pass_point();
            }
        });
        let job = claim::claim(&told, &capability(), 1).await.expect("a claim").pop().expect("the job is due");
        let lease = Lease::new(&job, Instant::now(), LEASE, CancellationToken::new());
        let context = Context {
            database: told.clone(),
            providers: Arc::clone(&self.providers),
            sealing: sealing(&self.database.database).await,
            // no package is built here
            evidence: workshop(Path::new("unused")),
            clock: Clock::system(),
            job: job.clone(),
            lease: Arc::clone(&lease),
            budgets: Budgets::new(told.clone(), 100),
            calls: Tally::default(),
        };
        let result = tokio::select! {
            biased;
            () = cut.cancelled() => None,
            result = kinds::run(&context) => Some(result),
        };
        let Some(result) = result else {
            self.lapse(&job).await;
            return Ended::Cut;
        };
        let outcome = match &result {
            Ok(_) => Outcome::Ended { state: JobState::Succeeded, reason: None },
            Err(JobError::Snooze { waiting_for, after }) => {
                Outcome::Snooze { waiting_for: *waiting_for, after: *after }
            }
            Err(JobError::Stopped(Stopped::Canceled)) => Outcome::Ended { state: JobState::Canceled, reason: None },
            Err(JobError::Fail { code, detail, permission }) => {
                let (code, detail, permission) = (code.clone(), detail.clone(), permission.clone());
                Outcome::Ended { state: JobState::Failed, reason: Some(Reason { code, detail, permission }) }
            }
            Err(JobError::Retry { code, detail, .. }) => {
                let reason = Reason { code: code.clone(), detail: detail.clone(), permission: None };
                Outcome::Retry { reason, after: Duration::from_secs(60) }
            }
            Err(JobError::Stopped(other)) => panic!("the attempt ended so: {other}"),
        };
        let write = self.database.database.begin().await.expect("a transaction");
        assert!(outcome::record(&*write, &lease.held, outcome).await.expect("the outcome is taken"));
        write.commit().await.expect("the outcome is durable");
        Ended::Recorded(result)
    }

    /// The lease of a dead worker runs out.
    async fn lapse(&self, job: &job::Model) {
        let db = &self.database.database;
        let past = clock::now(db.reader()).await.expect("the time") - chrono::TimeDelta::seconds(1);
        job::Entity::update_many()
            .col_expr(job::Column::LeaseUntil, Expr::value(past))
            .filter(job::Column::Id.eq(job.id))
            .exec(db.reader())
            .await
            .expect("the lease lapses");
        claim::rescue(db).await.expect("it is taken back");
    }

    /// Works until the job has ended or waits for a person.
    pub async fn to_the_end(&self) -> Result<Done, JobError> {
        loop {
            match self.attempt(&CancellationToken::new()).await {
                Ended::Recorded(Err(JobError::Snooze { waiting_for, after })) if after < Duration::from_secs(600) => {
                    assert_ne!(waiting_for.as_str(), "human");
                    self.hurry().await;
                }
                Ended::Recorded(Err(JobError::Retry { .. })) => self.hurry().await,
                Ended::Recorded(result) => return result,
                Ended::Cut => unreachable!("nobody cuts it"),
            }
        }
    }

    /// Lets what waits for a time be due now.
    pub async fn hurry(&self) {
        const NOW: &str = "UPDATE job SET due_at = {now} WHERE due_at IS NOT NULL AND turn IS NULL";
        let db = self.database.database.reader();
        db.execute_raw(clock::statement(db.get_database_backend(), NOW, [])).await.expect("it is due");
    }

    /// A new credential that does not work at once is given up.
    pub async fn give_no_time(&self, id: Uuid) {
        let mut target = self.row(id).await.target;
        target["terms"]["verify"]["deadlineSeconds"] = json!(0);
        rotation::Entity::update_many()
            .col_expr(rotation::Column::Target, Expr::value(target))
            .filter(rotation::Column::Id.eq(id))
            .exec(self.database.database.reader())
            .await
            .expect("it has no time");
    }

    /// What a rotation waits for is over.
    pub async fn pass_the_wait(&self, id: Uuid) {
        let row = self.row(id).await;
        let mut record = row.record.clone();
        record["pace"]["grace"] = json!(0);
        let db = self.database.database.reader();
        rotation::Entity::update_many()
            .col_expr(rotation::Column::Record, Expr::value(record))
            .filter(rotation::Column::Id.eq(id))
            .exec(db)
            .await
            .expect("the grace is over");
        self.hurry().await;
    }

    pub async fn row(&self, id: Uuid) -> rotation::Model {
        let found = rotation::Entity::find_by_id(id).one(self.database.database.reader()).await;
        found.expect("the rotation is read").expect("there is one")
    }

    /// What happened, in order.
    pub async fn steps(&self, id: Uuid) -> Vec<rotation_step::Model> {
        rotation_step::Entity::find()
            .filter(rotation_step::Column::RotationId.eq(id))
            .order_by_asc(rotation_step::Column::Number)
            .all(self.database.database.reader())
            .await
            .expect("the steps are read")
    }

    /// Whether any value is still sealed.
    pub async fn keeps_a_value(&self) -> bool {
        let found = rotation_secret::Entity::find().one(self.database.database.reader()).await;
        found.expect("the values are looked for").is_some()
    }
}

/// Terms without waits.
pub fn at_once(method: Method) -> Terms {
    Terms {
        method,
        grace_seconds: 0,
        hold_seconds: 0,
        quiet_seconds: 0,
        verify: Verify { successes: 2, spacing_seconds: 0, deadline_seconds: 30 },
        ..Terms::default()
    }
}

fn capability() -> Capability {
    Capability {
        worker: ids::new(),
        kinds: kinds::KINDS.to_vec(),
        payload_version: kinds::PAYLOAD_VERSION,
        labels: Vec::new(),
        lease: LEASE,
        limits: Limits::default(),
        progress: Arc::default(),
    }
}

/// Writes a secret as a scan leaves it.
pub async fn put_asset(db: &Database, subscription: Uuid, external_id: &str) -> Uuid {
    let (provider, account, endpoint) = (ProviderKind::Aws, ACCOUNT, "");
    let (kind, region) = ("aws.secretsmanager.secret", "eu-west-1");
    put_asset_of(db, subscription, &Elsewhere { provider, account, endpoint, kind, region, external_id }).await
}

async fn put_asset_of(db: &Database, subscription: Uuid, entry: &Elsewhere<'_>) -> Uuid {
    let now = clock::now(db.reader()).await.expect("the time");
    let row = asset::Model {
        id: ids::new(),
        subscription_id: subscription,
        provider: entry.provider,
        asset_type: AssetType::Secret,
        kind: entry.kind.to_owned(),
        vault_id: ids::new(),
        vault: "secretsmanager".to_owned(),
        region: entry.region.to_owned(),
        name: "app".to_owned(),
        name_key: "app".to_owned(),
        external_id: entry.external_id.to_owned(),
        enabled: Some(true),
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        first_seen_at: now,
        last_seen_at: now,
        removed_at: None,
        stale: false,
        owner: None,
        environment: None,
        tags: json!({}),
        certificate: None,
        attributes: json!({}),
        fingerprint: None,
        content_hash: String::new(),
        version: 1,
        last_scan_id: ids::new(),
        listed_hash: None,
        details: None,
        detailed_at: None,
    };
    row.into_active_model().reset_all().insert(db.reader()).await.expect("the asset is written").id
}

async fn put_policy(db: &Database, terms: &Terms) -> Uuid {
    let now = clock::now(db.reader()).await.expect("the time");
    let row = rotation_policy::ActiveModel {
        id: Set(ids::new()),
        name: Set(ids::new().to_string()),
        enabled: Set(true),
        content: Set(json!(terms)),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    row.insert(db.reader()).await.expect("the policy is written").id
}
