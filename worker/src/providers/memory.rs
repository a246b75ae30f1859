//! A complete cloud in memory: what tests put into it is what a scan finds, and it fails as it is told to.
//!
//! Nothing in it sleeps. Every call passes the gate, is written to the journal, and only then is answered, so that the journal
//! counts what a real cloud would have been asked.

mod details;
mod organization;
mod rotations;

use async_trait::async_trait;
use details::Described;
use keywright_jobs::{
    domain::inventory::{Account, AssetType, Observed, Page, ScopeId, Warning},
    provider::{Connection, Gate, Inventory, ProviderError, Providers, StoredCredential, Target},
};
pub use rotations::Stored;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One call that passed the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The `external_id` of the target.
    pub account: String,
    pub operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Connect,
    Scopes,
    /// `page` is the token that the caller gave.
    List {
        scope: ScopeId,
        page: Option<String>,
    },
    /// A closer look at the asset of this `external_id`.
    Complete {
        scope: ScopeId,
        asset: String,
    },
    /// The further accounts.
    Accounts,
    /// As whom it is logged in.
    Identity,
    /// A call of a rotation about an entry, a user or a credential.
    Rotation {
        call: &'static str,
        subject: String,
    },
}

impl Call {
    /// Whether this is that call of a rotation.
    pub fn rotates(&self, name: &str) -> bool {
        matches!(&self.operation, Operation::Rotation { call, .. } if *call == name)
    }

    /// Whether this looks closely at an asset in this region.
    pub fn completes(&self, region: &str) -> bool {
        matches!(&self.operation, Operation::Complete { scope, .. } if scope.region == region)
    }

    /// Whether this lists a scope in this region.
    pub fn lists(&self, region: &str) -> bool {
        matches!(&self.operation, Operation::List { scope, .. } if scope.region == region)
    }
}

type Matching = Box<dyn Fn(&Call) -> bool + Send>;

enum Answer {
    Error(ProviderError),
    /// Only once this is cancelled.
    After(CancellationToken),
    /// As ever, but this happens before.
    Then(Mutex<Option<Happens>>),
}

type Happens = Box<dyn FnOnce() + Send>;

struct Rule {
    matching: Matching,
    answer: Answer,
    /// How many more calls it holds for; `None` for all.
    times: Option<u32>,
}

#[derive(Default)]
struct Scope {
    assets: BTreeMap<String, Observed>,
    warnings: Vec<Warning>,
}

struct State {
    accounts: BTreeMap<String, BTreeMap<ScopeId, Scope>>,
    page_size: usize,
    /// Tokens of an earlier generation are no longer accepted.
    generation: u64,
    rules: Vec<Rule>,
    described: Described,
    /// Further accounts, by the account whose organisation they are in.
    members: BTreeMap<String, Vec<Account>>,
    credentials: rotations::Credentials,
}

/// The cloud; clones are the same cloud.
#[derive(Clone)]
pub struct MemoryCloud {
    state: Arc<Mutex<State>>,
    journal: watch::Sender<Vec<Call>>,
}

impl Default for MemoryCloud {
    fn default() -> Self {
        let state = State {
            accounts: BTreeMap::new(),
            page_size: 100,
            generation: 0,
            rules: Vec::new(),
            described: Described::default(),
            members: BTreeMap::new(),
            credentials: rotations::Credentials::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), journal: watch::Sender::new(Vec::new()) }
    }
}

/// Holds calls back until it is released or dropped.
#[must_use = "dropping it lets the calls go"]
pub struct Hold(CancellationToken);

impl Hold {
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl MemoryCloud {
    /// How many assets a page holds at most; at least one.
    pub fn page_size(&self, size: usize) {
        self.lock().page_size = size.max(1);
    }

    /// Makes an account without scopes, so that connecting to it works.
    pub fn account(&self, account: &str) {
        self.lock().accounts.entry(account.to_owned()).or_default();
    }

    /// Makes an empty scope.
    pub fn scope(&self, account: &str, scope: &ScopeId) {
        self.lock().accounts.entry(account.to_owned()).or_default().entry(scope.clone()).or_default();
    }

    /// Takes a scope away with all that is in it.
    pub fn drop_scope(&self, account: &str, scope: &ScopeId) {
        if let Some(scopes) = self.lock().accounts.get_mut(account) {
            scopes.remove(scope);
        }
    }

    /// Puts an asset into a scope, or replaces the one of its `external_id`.
    pub fn put(&self, account: &str, scope: &ScopeId, asset: Observed) {
        self.put_at(account, scope, &asset.external_id.clone(), asset);
    }

    /// Puts an asset at this place in the order of a listing, so that a provider may name one twice.
    pub fn put_at(&self, account: &str, scope: &ScopeId, place: &str, asset: Observed) {
        let mut state = self.lock();
        let scopes = state.accounts.entry(account.to_owned()).or_default();
        scopes.entry(scope.clone()).or_default().assets.insert(place.to_owned(), asset);
    }

    /// Puts plain secrets named `secret-0000` and so on into a scope.
    pub fn put_secrets(&self, account: &str, scope: &ScopeId, count: usize) {
        for number in 0..count {
            self.put(account, scope, secret(scope, &format!("secret-{number:04}")));
        }
    }

    /// Takes an asset away. Tells whether it was there.
    pub fn remove(&self, account: &str, scope: &ScopeId, external_id: &str) -> bool {
        let mut state = self.lock();
        let scope = state.accounts.get_mut(account).and_then(|scopes| scopes.get_mut(scope));
        scope.is_some_and(|scope| scope.assets.remove(external_id).is_some())
    }

    /// Tells this with the first page of the scope.
    pub fn warn(&self, account: &str, scope: &ScopeId, warning: Warning) {
        let mut state = self.lock();
        let scopes = state.accounts.entry(account.to_owned()).or_default();
        scopes.entry(scope.clone()).or_default().warnings.push(warning);
    }

    /// Refuses matching calls for want of this permission.
    pub fn deny(&self, permission: &str, matching: impl Fn(&Call) -> bool + Send + 'static) {
        let error = ProviderError::Denied {
            detail: format!("the credential lacks {permission}"),
            permission: Some(permission.to_owned()),
        };
        self.fail(None, error, matching);
    }

    /// Refuses the next `times` matching calls as too many.
    pub fn throttle(&self, times: u32, retry_after: Duration, matching: impl Fn(&Call) -> bool + Send + 'static) {
        let detail = "too many requests".to_owned();
        let error = ProviderError::Throttled { detail, retry_after: Some(retry_after) };
        self.fail(Some(times), error, matching);
    }

    /// Answers the next `times` matching calls (`None`: all of them) with this error.
    pub fn fail(&self, times: Option<u32>, error: ProviderError, matching: impl Fn(&Call) -> bool + Send + 'static) {
        self.lock().rules.push(Rule { matching: Box::new(matching), answer: Answer::Error(error), times });
    }

    /// Answers matching calls only once the hold is released.
    pub fn hold(&self, matching: impl Fn(&Call) -> bool + Send + 'static) -> Hold {
        let released = CancellationToken::new();
        let answer = Answer::After(released.clone());
        self.lock().rules.push(Rule { matching: Box::new(matching), answer, times: None });
        Hold(released)
    }

    /// Forgets every rule; calls that are being held stay held.
    pub fn heal(&self) {
        self.lock().rules.clear();
    }

    /// No page token that was given out so far is accepted any more.
    pub fn expire_pages(&self) {
        self.lock().generation += 1;
    }

    /// Every call so far, in the order in which they passed the gate.
    pub fn journal(&self) -> Vec<Call> {
        self.journal.borrow().clone()
    }

    /// How many matching calls there were so far.
    pub fn count(&self, matching: impl Fn(&Call) -> bool) -> usize {
        self.journal.borrow().iter().filter(|call| matching(call)).count()
    }

    /// Waits until there have been this many matching calls.
    pub async fn reached(&self, times: usize, matching: impl Fn(&Call) -> bool) {
        let mut journal = self.journal.subscribe();
        // the sender lives as long as `self`
        let _ = journal.wait_for(|calls| calls.iter().filter(|call| matching(call)).count() >= times).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the gate, writes the journal, then follows the first rule that matches.
    async fn call(&self, gate: &Gate, account: &str, operation: Operation) -> Result<(), ProviderError> {
        gate.pass().await?;
        let call = Call { account: account.to_owned(), operation };
        self.journal.send_modify(|calls| calls.push(call.clone()));
        match self.answer(&call) {
            Some(Answer::Error(error)) => Err(error),
            Some(Answer::After(released)) => {
                released.cancelled().await;
                Ok(())
            }
            Some(Answer::Then(happens)) => {
                if let Some(happens) = happens.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    happens();
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn answer(&self, call: &Call) -> Option<Answer> {
        let mut state = self.lock();
        let rule = state.rules.iter_mut().find(|rule| rule.times != Some(0) && (rule.matching)(call))?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(match &rule.answer {
            Answer::Error(error) => Answer::Error(error.clone()),
            Answer::After(released) => Answer::After(released.clone()),
            Answer::Then(happens) => {
                Answer::Then(Mutex::new(happens.lock().unwrap_or_else(PoisonError::into_inner).take()))
            }
        })
    }

    fn page(&self, account: &str, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        let state = self.lock();
        let start = match page {
            Some(token) => match token.rsplit_once('@') {
                Some((after, generation)) if generation == state.generation.to_string() => Some(after),
                _ => return Err(ProviderError::PageExpired),
            },
            None => None,
        };
        let Some(found) = state.accounts.get(account).and_then(|scopes| scopes.get(scope)) else {
            let detail = format!("{account} has no {} in {}", scope.kind, scope.region);
            return Err(ProviderError::Rejected { code: "no_such_scope".to_owned(), detail });
        };
        // a page begins after the last name of the one before, so that what comes and goes meanwhile shifts nothing
        let mut rest = found.assets.iter().filter(|(id, _)| start.is_none_or(|after| id.as_str() > after));
        let page: Vec<(&String, &Observed)> = rest.by_ref().take(state.page_size).collect();
        let more = rest.next().is_some();
        let last = page.last().map(|(place, _)| format!("{place}@{}", state.generation));
        let assets = page.into_iter().map(|(_, asset)| asset.clone()).collect();
        let warnings = if start.is_none() { found.warnings.clone() } else { Vec::new() };
        Ok(Page { assets, warnings, next: last.filter(|_| more) })
    }
}

#[async_trait]
impl Providers for MemoryCloud {
    async fn connect(
        &self,
        target: &Target,
        _: Option<StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        let account = target.external_id.clone();
        self.call(&gate, &account, Operation::Connect).await?;
        if !self.lock().accounts.contains_key(&account) {
            return Err(ProviderError::Unauthenticated { detail: format!("there is no account {account}") });
        }
        let connection =
            Connection::new(MemoryInventory { cloud: self.clone(), account: account.clone(), gate: gate.clone() });
        let organization = organization::MemoryOrganization::new(self.clone(), account.clone(), gate.clone());
        let rotations =
            rotations::MemoryRotations { cloud: self.clone(), account: account.clone(), gate: gate.clone() };
        Ok(connection
            .with_rotations(rotations)
            .with_details(details::MemoryDetails { cloud: self.clone(), account, gate })
            .with_accounts(organization.clone())
            .with_login(organization))
    }
}

struct MemoryInventory {
    cloud: MemoryCloud,
    account: String,
    gate: Gate,
}

#[async_trait]
impl Inventory for MemoryInventory {
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        self.cloud.call(&self.gate, &self.account, Operation::Scopes).await?;
        Ok(self.cloud.lock().accounts.get(&self.account).into_iter().flat_map(BTreeMap::keys).cloned().collect())
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        let operation = Operation::List { scope: scope.clone(), page: page.map(str::to_owned) };
        self.cloud.call(&self.gate, &self.account, operation).await?;
        self.cloud.page(&self.account, scope, page)
    }
}

/// A scope of plain secrets in a region.
pub fn secrets_in(region: &str) -> ScopeId {
    ScopeId { region: region.to_owned(), kind: "memory.secret".to_owned() }
}

/// A plain secret without dates or tags.
pub fn secret(scope: &ScopeId, name: &str) -> Observed {
    Observed {
        asset_type: AssetType::Secret,
        kind: scope.kind.clone(),
        vault: "memory".to_owned(),
        name: name.to_owned(),
        external_id: format!("memory:{}:{name}", scope.region),
        enabled: Some(true),
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: BTreeMap::new(),
        certificate: None,
        attributes: serde_json::Map::new(),
        relations: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
