//! Entries and users of the in-memory cloud whose credentials can be rotated.
//!
//! It refuses what a real one refuses (keys that are deleted, inactive or not known everywhere yet; a third key), and watches over
//! what must hold at every instant: what an entry says is current works, and nobody has more than two keys. A call can be cut at
//! its beginning and at its end, as by a worker that dies, and its answer can be lost.

mod entry;
mod issuers;

use super::{Answer, Call, MemoryCloud, Operation, Rule};
use crate::providers::rotated;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use entry::At;
use issuers::Keys;
use keywright_jobs::{
    domain::rotation::Method,
    provider::{
        Gate, NOT_FOUND, ProviderError,
        rotation::{CredentialIssuer, Entry, Parts, Rotations, SecretValue},
    },
};
use secrecy::ExposeSecret;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Keys of one user.
const MOST_KEYS: usize = 2;

#[derive(Clone)]
pub(super) struct Key {
    id: String,
    secret: String,
    active: bool,
    works_from: Instant,
    used: Option<DateTime<Utc>>,
}

#[derive(Clone, Default)]
pub(super) struct Versions {
    values: BTreeMap<String, Vec<u8>>,
    current: Option<String>,
    pending: Option<String>,
    /// Made current, in order.
    promoted: Vec<String>,
    destroyed: BTreeSet<String>,
    disabled: BTreeSet<String>,
    /// Cannot hold a version that is not current.
    single: bool,
}

#[derive(Default)]
pub(super) struct Credentials {
    users: BTreeMap<String, Vec<Key>>,
    entries: BTreeMap<String, Versions>,
    made: usize,
    propagation: Duration,
    broken: Vec<String>,
    points: usize,
    cut: Option<(usize, CancellationToken)>,
    lose: Option<(&'static str, usize)>,
}

/// What an entry holds, for those who check it from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub current: Option<String>,
    pub value: Vec<u8>,
    pub pending: Option<String>,
    /// Versions that became current, in order.
    pub promoted: Vec<String>,
}

impl MemoryCloud {
    /// Makes a user with one key, and an entry that holds it. Tells the key's id.
    pub fn put_access_key(&self, user: &str, entry: &str) -> String {
        let mut state = self.lock();
        let credentials = &mut state.credentials;
        let key = credentials.new_key(Instant::now());
        let id = key.id.clone();
        let stored = serde_json::json!({"accessKeyId": key.id, "secretAccessKey": key.secret}).to_string();
        credentials.users.insert(user.to_owned(), vec![key]);
        credentials.put_entry(entry, stored.into_bytes(), false);
        id
    }

    /// A key of the user's that somebody else made. Tells its id.
    pub fn put_strange_key(&self, user: &str, active: bool) -> String {
        let mut state = self.lock();
        let credentials = &mut state.credentials;
        let key = Key { active, ..credentials.new_key(Instant::now()) };
        let id = key.id.clone();
        credentials.users.entry(user.to_owned()).or_default().push(key);
        id
    }

    /// Somebody deletes a key by hand.
    pub fn remove_key(&self, user: &str, id: &str) {
        if let Some(keys) = self.lock().credentials.users.get_mut(user) {
            keys.retain(|key| key.id != id);
        }
    }

    /// Makes an entry of this value; `single` when it cannot hold a version that is not current.
    pub fn put_entry(&self, entry: &str, value: &str, single: bool) {
        self.lock().credentials.put_entry(entry, value.as_bytes().to_vec(), single);
    }

    /// Somebody sets the entry's value by hand.
    pub fn overwrite(&self, entry: &str, value: &str) {
        let mut state = self.lock();
        let name = format!("human-{}", state.credentials.made);
        state.credentials.made += 1;
        if let Some(versions) = state.credentials.entries.get_mut(entry) {
            versions.values.insert(name.clone(), value.as_bytes().to_vec());
            versions.current = Some(name);
        }
    }

    /// The ids of a user's keys, and whether each is active.
    pub fn keys_of(&self, user: &str) -> Vec<(String, bool)> {
        let state = self.lock();
        let keys = state.credentials.users.get(user).into_iter().flatten();
        keys.map(|key| (key.id.clone(), key.active)).collect()
    }

    pub fn stored(&self, entry: &str) -> Stored {
        let state = self.lock();
        let versions = state.credentials.entries.get(entry).cloned().unwrap_or_default();
        let value = versions.current.as_ref().and_then(|current| versions.values.get(current)).cloned();
        Stored {
            current: versions.current,
            value: value.unwrap_or_default(),
            pending: versions.pending,
            promoted: versions.promoted,
        }
    }

    /// What did not hold at some instant.
    pub fn broken(&self) -> Vec<String> {
        self.lock().credentials.broken.clone()
    }

    /// New keys work only after so long.
    pub fn propagation(&self, delay: Duration) {
        self.lock().credentials.propagation = delay;
    }

    /// Does this before the first matching call.
    pub fn before(&self, matching: impl Fn(&Call) -> bool + Send + 'static, happens: impl FnOnce() + Send + 'static) {
        let answer = Answer::Then(Mutex::new(Some(Box::new(happens))));
        self.lock().rules.push(Rule { matching: Box::new(matching), answer, times: Some(1) });
    }

    /// How many points at which a call can be cut were passed.
    pub fn points(&self) -> usize {
        self.lock().credentials.points
    }

    /// Cuts whoever comes to this point: they hear no more, and this is cancelled.
    pub fn cut_at(&self, point: usize) -> CancellationToken {
        let cut = CancellationToken::new();
        let mut state = self.lock();
        state.credentials.points = 0;
        state.credentials.cut = Some((point, cut.clone()));
        cut
    }

    /// Does the next calls of this name without telling that it did.
    pub fn lose_answers(&self, call: &'static str, times: usize) {
        self.lock().credentials.lose = Some((call, times));
    }

    /// Passes a point at which whoever works may die. `true`: they do, and what they await next is dropped.
    pub fn pass_point(&self) -> bool {
        let mut state = self.lock();
        let credentials = &mut state.credentials;
        let here = credentials.points;
        credentials.points += 1;
        match &credentials.cut {
            Some((at, cut)) if *at == here => {
                cut.cancel();
                true
            }
            _ => false,
        }
    }

    async fn point(&self) {
        if self.pass_point() {
            std::future::pending::<()>().await;
        }
    }
}

impl Credentials {
    fn new_key(&mut self, works_from: Instant) -> Key {
        self.made += 1;
        let number = self.made;
        Key {
            id: format!("AKIA{number:016}"),
            secret: format!("secret-of-{number}"),
            active: true,
            works_from,
            used: None,
        }
    }

    fn put_entry(&mut self, entry: &str, value: Vec<u8>, single: bool) {
        let first = "first".to_owned();
        let versions = Versions {
            values: BTreeMap::from([(first.clone(), value)]),
            current: Some(first),
            single,
            ..Versions::default()
        };
        self.entries.insert(entry.to_owned(), versions);
    }

    fn works(&self, value: &[u8]) -> Option<bool> {
        let (id, secret) = rotated::access_key(&SecretValue::new(value.to_vec())).ok()?;
        let key = self.users.values().flatten().find(|key| key.id == id);
        Some(
            key.is_some_and(|key| {
                key.active && key.secret == secret.expose_secret() && Instant::now() >= key.works_from
            }),
        )
    }

    /// What must hold at every instant.
    fn check(&mut self, after: &str) {
        let mut broken = Vec::new();
        for (name, versions) in &self.entries {
            let value = versions.current.as_ref().and_then(|current| versions.values.get(current));
            let gone = versions
                .current
                .as_ref()
                .is_some_and(|one| versions.destroyed.contains(one) || versions.disabled.contains(one));
            match value {
                None => broken.push(format!("{after}: {name} has no current version")),
                Some(_) if gone => broken.push(format!("{after}: what {name} says is current is switched off")),
                Some(value) if self.works(value) == Some(false) => {
                    broken.push(format!("{after}: what {name} says is current does not work"));
                }
                Some(_) => {}
            }
        }
        for (user, keys) in self.users.iter().filter(|(_, keys)| keys.len() > MOST_KEYS) {
            broken.push(format!("{after}: {user} has {} keys", keys.len()));
        }
        self.broken.extend(broken);
    }

    fn entry(&mut self, name: &str) -> Result<&mut Versions, ProviderError> {
        self.entries.get_mut(name).ok_or_else(|| rejected(NOT_FOUND, "there is no such entry"))
    }

    fn key(&mut self, user: &str, id: &str) -> Result<&mut Key, ProviderError> {
        let keys = self.users.get_mut(user).ok_or_else(|| rejected(NOT_FOUND, "there is no such user"))?;
        keys.iter_mut().find(|key| key.id == id).ok_or_else(|| rejected(NOT_FOUND, "there is no such key"))
    }
}

fn rejected(code: &str, detail: &str) -> ProviderError {
    ProviderError::Rejected { code: code.to_owned(), detail: detail.to_owned() }
}

/// The rotations of an account.
#[derive(Clone)]
pub(super) struct MemoryRotations {
    pub cloud: MemoryCloud,
    pub account: String,
    pub gate: Gate,
}

impl MemoryRotations {
    async fn call<T>(
        &self,
        name: &'static str,
        subject: &str,
        work: impl FnOnce(&mut Credentials) -> Result<T, ProviderError> + Send,
    ) -> Result<T, ProviderError> {
        self.cloud.point().await;
        let operation = Operation::Rotation { call: name, subject: subject.to_owned() };
        self.cloud.call(&self.gate, &self.account, operation).await?;
        let (done, lost) = {
            let mut state = self.cloud.lock();
            let credentials = &mut state.credentials;
            let done = work(credentials);
            credentials.check(name);
            let lost = match &mut credentials.lose {
                Some((which, times)) if *which == name && *times > 0 => {
                    *times -= 1;
                    true
                }
                _ => false,
            };
            (done, lost)
        };
        self.cloud.point().await;
        if lost { Err(ProviderError::Unavailable { detail: "the answer was lost".to_owned() }) } else { done }
    }
}

#[async_trait]
impl Rotations for MemoryRotations {
    async fn open(&self, entry: &Entry, method: &Method, owner: Option<&str>) -> Result<Parts, ProviderError> {
        let at = At { calls: self.clone(), entry: entry.external_id.clone() };
        let issuer: Box<dyn CredentialIssuer> = match method {
            Method::AwsAccessKey => Box::new(Keys { at: at.clone(), user: owner.unwrap_or_default().to_owned() }),
            Method::Generated { length, characters, json_key } => Box::new(rotated::Texts {
                identity: format!("memory:{}:{}", self.account, entry.external_id),
                versions: at.clone(),
                length: *length,
                characters: *characters,
                json_key: json_key.clone(),
            }),
        };
        Ok(Parts { issuer, store: Box::new(at) })
    }
}
