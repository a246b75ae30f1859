//! Looking again whether those may stay who have been let in for long: the open streams of a process.
//!
//! One look asks for the credentials of all streams at once, so that a thousand of them cost a query or two, and wakes them only
//! when somebody's rights have changed.

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
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// For how long what a look found is believed.
const BELIEVED: Duration = Duration::from_secs(1);
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

/// What one look found: of whom was asked, and what each still may.
type Found = HashMap<Key, Option<Rights>>;

/// The credentials that have streams.
#[derive(Debug, Default)]
struct Open {
    /// How many each of them has.
    streams: HashMap<Key, usize>,
    /// Streams came since the last look.
    came: bool,
}

/// The looks of one process.
#[derive(Clone)]
pub struct Vigil {
    open: Arc<Mutex<Open>>,
    /// The latest look that found other rights than the one before.
    changes: watch::Sender<Arc<Found>>,
    /// When the latest look began that the database answered.
    looked: watch::Sender<Option<Instant>>,
}

impl Vigil {
    /// Looks until `stop`, while there are streams.
    pub fn start(identity: Arc<Identity>, stop: CancellationToken) -> Self {
        let vigil = Self {
            open: Arc::default(),
            changes: watch::Sender::new(Arc::default()),
            looked: watch::Sender::new(None),
        };
        let keeping = vigil.clone();
        tokio::spawn(async move {
            let mut beats = tokio::time::interval(LOOK);
            beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut before = Found::default();
            loop {
                tokio::select! {
                    _ = beats.tick() => {}
                    () = stop.cancelled() => return,
                }
                let began = Instant::now();
                let (asked, came) = keeping.asked();
                let found = match look(&identity, &asked).await {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::debug!(%error, "the credentials of open streams could not be looked up; trying again");
                        keeping.lock().came |= came;
                        continue;
                    }
                };
                // one that has just come may have been let in with what held before
                if came || found.iter().any(|(key, rights)| before.get(key) != Some(rights)) {
                    keeping.changes.send_replace(Arc::new(found.clone()));
                }
                before = found;
                keeping.looked.send_replace(Some(began));
            }
        });
        vigil
    }

    /// Has the credential looked at from the next look on, which must still allow `P`.
    pub fn watch<P: Required>(&self, principal: &Principal) -> Watched {
        let key = Key::of(&principal.credential);
        {
            let mut open = self.lock();
            *open.streams.entry(key).or_default() += 1;
            open.came = true;
        }
        Watched {
            vigil: self.clone(),
            key,
            rights: Rights::of(principal),
            permission: P::PERMISSION,
            since: Instant::now(),
            changes: self.changes.subscribe(),
            looked: self.looked.subscribe(),
        }
    }

    fn asked(&self) -> (Vec<Key>, bool) {
        let mut open = self.lock();
        (open.streams.keys().copied().collect(), std::mem::take(&mut open.came))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A credential under watch.
pub struct Watched {
    vigil: Vigil,
    key: Key,
    rights: Rights,
    permission: Permission,
    /// When it came under watch, just after it was asked for by its request.
    since: Instant,
    changes: watch::Receiver<Arc<Found>>,
    looked: watch::Receiver<Option<Instant>>,
}

impl Watched {
    /// Waits until somebody's rights have changed; tells whether the caller may stay. Who may do or see something else than before
    /// comes again, and is let in with what holds then.
    pub async fn stays(&mut self) -> bool {
        if self.changes.changed().await.is_err() {
            return false;
        }
        let found = self.changes.borrow_and_update();
        match found.get(&self.key) {
            // not asked yet
            None => true,
            Some(None) => false,
            Some(Some(now)) => *now == self.rights && now.may.contains(&self.permission),
        }
    }

    /// Whether there was a change that nobody has heard of.
    pub fn is_due(&self) -> bool {
        self.changes.has_changed().unwrap_or(true)
    }

    /// Whether it is too long ago that the rights were seen for anything more to be told by them: the looks are not answered.
    pub fn is_doubtful(&self) -> bool {
        let seen = self.looked.borrow().unwrap_or(self.since).max(self.since);
        seen.elapsed() >= BELIEVED
    }

    /// Waits for a look that begins from now on and is answered.
    pub async fn looked(&mut self) {
        let now = Instant::now();
        // its sender lives as long as `self`
        let _ = self.looked.wait_for(|began| began.is_some_and(|began| began >= now)).await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut open = self.vigil.lock();
        if let Some(streams) = open.streams.get_mut(&self.key) {
            *streams -= 1;
            if *streams == 0 {
                open.streams.remove(&self.key);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn vigil() -> Vigil {
        Vigil { open: Arc::default(), changes: watch::Sender::new(Arc::default()), looked: watch::Sender::new(None) }
    }

    fn watched(vigil: &Vigil) -> Watched {
        *vigil.lock().streams.entry(Key::Session(Uuid::nil())).or_default() += 1;
        Watched {
            vigil: vigil.clone(),
            key: Key::Session(Uuid::nil()),
            rights: Rights { may: vec![Permission::JobsRead], visible: Scope::All },
            permission: Permission::JobsRead,
            since: Instant::now(),
            changes: vigil.changes.subscribe(),
            looked: vigil.looked.subscribe(),
        }
    }

    #[tokio::test]
    async fn rights_are_in_doubt_while_no_look_is_answered() {
        let vigil = vigil();
        let mut watched = watched(&vigil);
        assert!(!watched.is_doubtful());
        let before = Instant::now() - BELIEVED;
        watched.since = before;
        assert!(watched.is_doubtful());
        vigil.looked.send_replace(Some(Instant::now()));
        assert!(!watched.is_doubtful());
        vigil.looked.send_replace(Some(before));
        assert!(watched.is_doubtful());
        // one that began before does not count for what has happened since
        let waiting = tokio::spawn(async move {
            watched.looked().await;
            watched
        });
        tokio::task::yield_now().await;
        vigil.looked.send_replace(Some(before));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        vigil.looked.send_replace(Some(Instant::now()));
        assert!(!waiting.await.unwrap().is_doubtful());
        assert!(vigil.lock().streams.is_empty(), "who has gone is not looked for");
    }

    #[tokio::test]
    async fn other_rights_send_away_and_the_same_do_not() {
        let vigil = vigil();
        for (found, stays) in [
            (Some(Rights { may: vec![Permission::JobsRead], visible: Scope::All }), true),
            (Some(Rights { may: vec![Permission::JobsRead], visible: Scope::Subscriptions(Vec::new()) }), false),
            (Some(Rights { may: Vec::new(), visible: Scope::All }), false),
            (None, false),
        ] {
            let mut watched = watched(&vigil);
            assert!(!watched.is_due());
            vigil.changes.send_replace(Arc::new([(watched.key, found)].into()));
            assert!(watched.is_due());
            assert_eq!(watched.stays().await, stays);
        }
        let mut watched = watched(&vigil);
        vigil.changes.send_replace(Arc::default());
        assert!(watched.stays().await, "of whom was not asked yet nothing is known");
    }
}
