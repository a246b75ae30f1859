//! Looking again whether those may stay who have been let in for long: the open streams of a process.
//!
//! One look asks for the credentials of all streams at once, so that a thousand of them cost a query or two.

use super::{
    Credential, Identity, Principal,
    permissions::{Permission, Required},
};
use keywright_entities::{api_token, scope::Scope, session};
use sea_orm::DbErr;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many credentials are asked for at once.
const CHUNK: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Session(Uuid),
    Token(Uuid),
}

impl Key {
    fn of(credential: &Credential) -> Self {
        match credential {
            Credential::Session { id, .. } => Self::Session(*id),
            Credential::ApiToken { id, .. } => Self::Token(*id),
        }
    }
}

/// What somebody may do and see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rights {
    may: Vec<Permission>,
    visible: Scope,
}

impl Rights {
    fn of(principal: &Principal) -> Self {
        let may = Permission::ALL.iter().copied().filter(|permission| principal.may(*permission)).collect();
        Self { may, visible: principal.visible() }
    }
}

/// What one look found: of whom was asked, and what each still may. Nothing when the database did not answer.
type Found = HashMap<Key, Option<Rights>>;

/// The looks of one process.
#[derive(Clone)]
pub struct Vigil {
    /// How many streams each credential has.
    open: Arc<Mutex<HashMap<Key, usize>>>,
    looks: watch::Sender<Arc<Found>>,
}

impl Vigil {
    /// Looks at every `heartbeat` until `stop`.
    pub fn start(identity: Arc<Identity>, heartbeat: Duration, stop: CancellationToken) -> Self {
        let vigil = Self { open: Arc::default(), looks: watch::Sender::new(Arc::default()) };
        let keeping = vigil.clone();
        tokio::spawn(async move {
            let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + heartbeat, heartbeat);
            beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = beats.tick() => {}
                    () = stop.cancelled() => return,
                }
                let asked: Vec<Key> = keeping.lock().keys().copied().collect();
                // while the database is away nothing can be told that somebody must not hear; who follows stays
                let found = look(&identity, &asked).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "the credentials of open streams could not be looked up; trying again");
                    Found::default()
                });
                keeping.looks.send_replace(Arc::new(found));
            }
        });
        vigil
    }

    /// Has the credential looked at from the next look on, which must still allow `P`.
    pub fn watch<P: Required>(&self, principal: &Principal) -> Watched {
        let key = Key::of(&principal.credential);
        *self.lock().entry(key).or_default() += 1;
        let looks = self.looks.subscribe();
        Watched { vigil: self.clone(), key, rights: Rights::of(principal), permission: P::PERMISSION, looks }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A credential under watch.
pub struct Watched {
    vigil: Vigil,
    key: Key,
    rights: Rights,
    permission: Permission,
    looks: watch::Receiver<Arc<Found>>,
}

impl Watched {
    /// Waits for the next look; tells whether the caller may stay. Who may do or see something else than before comes again, and
    /// is let in with what holds then.
    pub async fn stays(&mut self) -> bool {
        if self.looks.changed().await.is_err() {
            return false;
        }
        let looks = self.looks.borrow_and_update();
        match looks.get(&self.key) {
            // not asked yet
            None => true,
            Some(None) => false,
            Some(Some(now)) => *now == self.rights && now.may.contains(&self.permission),
        }
    }

    /// Whether there was a look that nobody has heard of.
    pub fn is_due(&self) -> bool {
        self.looks.has_changed().unwrap_or(true)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut open = self.vigil.lock();
        if let Some(streams) = open.get_mut(&self.key) {
            *streams -= 1;
            if *streams == 0 {
                open.remove(&self.key);
            }
        }
    }
}

async fn look(identity: &Identity, asked: &[Key]) -> Result<Found, DbErr> {
    let db = identity.db.reader();
    let mut found: Found = asked.iter().map(|key| (*key, None)).collect();
    let (mut sessions, mut tokens) = (Vec::new(), Vec::new());
    for key in asked {
        match key {
            Key::Session(id) => sessions.push(*id),
            Key::Token(id) => tokens.push(*id),
        }
    }
    let mut known = Vec::new();
    for ids in sessions.chunks(CHUNK) {
        let live = session::live_with_users(db, ids).await?;
        known.extend(live.into_iter().map(|(session, user)| Principal::of_session(&session, user)));
    }
    for ids in tokens.chunks(CHUNK) {
        let valid = api_token::valid_with_owners(db, ids).await?;
        known.extend(valid.into_iter().map(|(token, owner)| Principal::of_token(token, owner)));
    }
    found.extend(known.iter().map(|principal| (Key::of(&principal.credential), Some(Rights::of(principal)))));
    Ok(found)
}
