//! The settings that an administrator makes: reading them, keeping them at hand, changing them.

use crate::{
    approvals::{self, Ask, Unaskable},
    audit::{Actor, Event, EventType},
    domain::settings::Settings,
    queue::Requester,
    setup::database::{Database, Write},
};
use aws_lc_rs::digest::{SHA256, digest};
use keywright_entities::{approval, clock, settings};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, DbErr, IntoActiveModel};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The action of changing settings, as approvals and the setting `fourEyes` name it.
pub const UPDATE: &str = "settings.update";
/// For how long a process goes by what it has read.
const FRESH: Duration = Duration::from_secs(1);

/// The settings as they are now.
///
/// # Errors
/// Also when something was set that this version cannot read.
pub async fn read(db: &impl ConnectionTrait) -> Result<Settings, DbErr> {
    of(&settings::row(db).await?)
}

/// What a row sets.
///
/// # Errors
/// When something was set that this version cannot read.
pub fn of(row: &settings::Model) -> Result<Settings, DbErr> {
    Settings::of(&row.content).map_err(|error| DbErr::Json(format!("the settings cannot be read: {error}")))
}

/// The settings at hand: read at most once a second, however many ask, and not at all while nobody does. What another process
/// changes is in force here at most that much later.
#[derive(Clone)]
pub struct Live {
    database: Database,
    known: Arc<Mutex<Option<Known>>>,
}

/// What was read, and when.
struct Known {
    since: Instant,
    settings: Arc<Settings>,
}

impl Live {
    pub fn new(database: Database) -> Self {
        Self { database, known: Arc::default() }
    }

    /// The settings in force.
    ///
    /// # Errors
    /// When they must be read and cannot be.
    pub async fn current(&self) -> Result<Arc<Settings>, DbErr> {
        // the others that come meanwhile wait for this one's answer
        let mut known = self.known.lock().await;
        if let Some(known) = &*known
            && known.since.elapsed() < FRESH
        {
            return Ok(Arc::clone(&known.settings));
        }
        let since = Instant::now();
        let settings = Arc::new(read(self.database.reader()).await?);
        *known = Some(Known { since, settings: Arc::clone(&settings) });
        Ok(settings)
    }

    /// Forgets what was read: this process has changed it.
    pub async fn forget(&self) {
        *self.known.lock().await = None;
    }
}

/// A change of the settings: what it was made from, and all that is set after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub version: i64,
    pub content: Value,
}

impl Change {
    /// SHA-256 over what it does, in hex.
    fn hash(&self) -> String {
        let text = format!("{UPDATE}:{}:{}", self.version, self.content);
        hex::encode(digest(&SHA256, text.as_bytes()))
    }
}

/// Changes the settings from `before`, which is locked, in the caller's transaction.
///
/// # Errors
/// When the database does not take it.
pub async fn apply(
    write: &Write,
    before: settings::Model,
    content: Value,
    actor: Actor,
    request_id: &str,
) -> Result<settings::Model, DbErr> {
    let event = Event::new(EventType::SettingsUpdated, actor, "settings")
        .request(request_id)
        .detail("version", before.version + 1)
        .detail("before", before.content.clone())
        .detail("after", content.clone());
    let version = before.version + 1;
    let mut after = before.into_active_model();
    after.content = Set(content);
    after.updated_at = Set(Some(clock::micros(clock::now(&**write).await?)));
    after.version = Set(version);
    let after = after.update(&**write).await?;
    event.write(&**write).await?;
    Ok(after)
}

/// Asks somebody else to approve a change, in the caller's transaction. Asked again by the same person, it is the same approval.
///
/// # Errors
/// When the database does not take it.
pub async fn ask(
    write: &Write,
    change: Change,
    requester: &Requester,
    user: Uuid,
) -> Result<approval::Model, Unaskable> {
    let plan_hash = change.hash();
    if let Some(open) = approval::open_of(&**write, &plan_hash, user).await? {
        return Ok(open);
    }
    let ask = Ask {
        action: UPDATE,
        subject: ("settings", None),
        plan_hash,
        plan: serde_json::to_value(change).map_err(|error| DbErr::Json(error.to_string()))?,
        subscription: None,
        job: None,
    };
    approvals::request(write, ask, requester, Some(user)).await
}
