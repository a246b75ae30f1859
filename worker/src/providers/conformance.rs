//! Long because it is one list of claims with how each is tried.
//!
//! What every cloud must do behind the traits of `keywright_jobs::provider`: one list of claims, and how each is tried.
//!
//! A cloud is tried as a [`Subject`], which brings about what the claims are about. It ships, like the cloud in memory, so that whoever
//! adds a cloud elsewhere can try theirs; `tests/it/conformance.rs` tries ours.

use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{Observed, Page, ScopeId},
    provider::{Connection, Gate, NOT_FOUND, Pass, ProviderError, Stopped},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug, Display, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

/// A page that is asked for more often than this never ends.
const MOST_PAGES: usize = 1000;
/// Longer than a call waits where it runs, so that it is told instead.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// One promise of a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The scopes are the same ones in the same order each time, each once.
    StableScopes,
    /// Every asset of every scope is on exactly one page.
    CompletePages,
    /// There is more than one page, and the next begins where the one before ended, whoever asks for it.
    ResumedPages,
    /// A page token that the provider no longer accepts is told as such.
    ExpiredPage,
    /// A missing permission is named.
    NamedPermission,
    /// Throttling is told with how long to wait.
    RetryAfter,
    /// An asset that is gone when it is looked at is told as such.
    VanishedAsset,
    /// Behind a gate that is closed nothing is asked.
    ClosedGate,
    /// A list tells that an asset changed, and of no other that it did.
    VisibleChange,
    /// A closer look keeps what an asset is, and finds the same twice.
    StableDetails,
    /// The dates are those that the cloud holds.
    Dates,
    /// No value is in anything that is returned.
    NoValue,
}

impl Claim {
    pub const ALL: [Self; 12] = [
        Self::StableScopes,
        Self::CompletePages,
        Self::ResumedPages,
        Self::ExpiredPage,
        Self::NamedPermission,
        Self::RetryAfter,
        Self::VanishedAsset,
        Self::ClosedGate,
        Self::VisibleChange,
        Self::StableDetails,
        Self::Dates,
        Self::NoValue,
    ];
}

/// What came of trying a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// In this way.
    Broken(String),
    /// The subject cannot bring it about.
    Untried,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Broken(how) => write!(f, "broken: {how}"),
            Self::Untried => f.write_str("cannot be tried"),
        }
    }
}

/// A cloud with something in it. What it cannot bring about is `None`.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens it anew.
    async fn connect(&self, gate: Gate) -> Result<Connection, ProviderError>;

    /// What is in it, by external id, as somebody else than the provider knows.
    fn contents(&self) -> BTreeMap<ScopeId, BTreeSet<String>>;

    /// The scope that faults are tried with: it has more than one page, or none has.
    fn scope(&self) -> ScopeId;

    /// Texts that are in values, and nowhere else.
    fn values(&self) -> Vec<String>;

    /// An asset of [`Subject::scope`] by its external id, and a date in each of its times that the cloud holds, as RFC 3339 text
    /// begins, by the field's name.
    fn dates(&self) -> Option<(String, BTreeMap<&'static str, String>)> {
        None
    }

    /// How many requests it has got.
    fn requests(&self) -> Option<usize> {
        None
    }

    /// No page token that was given so far is accepted any more.
    async fn expire_pages(&self) -> Option<()> {
        None
    }

    /// Takes the right to list [`Subject::scope`] away, and tells the provider's name of it.
    async fn deny(&self) -> Option<String> {
        None
    }

    /// Refuses to list [`Subject::scope`] as too many requests, for this long.
    async fn throttle(&self, _retry_after: Duration) -> Option<()> {
        None
    }

    /// Changes an asset of [`Subject::scope`] and tells its external id.
    async fn change(&self) -> Option<String> {
        None
    }

    /// Takes back what was denied and throttled.
    async fn heal(&self) {}
}

/// Why a claim does not hold, while it is tried.
enum Miss {
    Broken(String),
    Untried,
}

impl From<ProviderError> for Miss {
    fn from(error: ProviderError) -> Self {
        Self::Broken(format!("refused: {error}"))
    }
}

type Tried = Result<(), Miss>;

fn broken(how: impl Into<String>) -> Miss {
    Miss::Broken(how.into())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Tried {
    if holds { Ok(()) } else { Err(broken(otherwise())) }
}

/// Tries every claim, in their order.
pub async fn try_all(subject: &dyn Subject) -> BTreeMap<Claim, Verdict> {
    let mut verdicts = BTreeMap::new();
    for claim in Claim::ALL {
        let tried = try_one(subject, claim).await;
        subject.heal().await;
        let verdict = match tried {
            Ok(()) => Verdict::Holds,
            Err(Miss::Broken(how)) => Verdict::Broken(how),
            Err(Miss::Untried) => Verdict::Untried,
        };
        verdicts.insert(claim, verdict);
    }
    verdicts
}

async fn try_one(subject: &dyn Subject, claim: Claim) -> Tried {
    match claim {
        Claim::StableScopes => stable_scopes(subject).await,
        Claim::CompletePages => complete_pages(subject).await,
        Claim::ResumedPages => resumed_pages(subject).await,
        Claim::ExpiredPage => expired_page(subject).await,
        Claim::NamedPermission => named_permission(subject).await,
        Claim::RetryAfter => retry_after(subject).await,
        Claim::VanishedAsset => vanished_asset(subject).await,
        Claim::ClosedGate => closed_gate(subject).await,
        Claim::VisibleChange => visible_change(subject).await,
        Claim::StableDetails => stable_details(subject).await,
        Claim::Dates => dates(subject).await,
        Claim::NoValue => no_value(subject).await,
    }
}

async fn open(subject: &dyn Subject) -> Result<Connection, ProviderError> {
    subject.connect(Gate::open()).await
}

async fn all_pages(connection: &Connection, scope: &ScopeId) -> Result<Vec<Page>, Miss> {
    let mut pages = Vec::new();
    let mut token = None;
    while pages.len() < MOST_PAGES {
        let page = connection.inventory.list(scope, token.as_deref()).await?;
        token.clone_from(&page.next);
        pages.push(page);
        if token.is_none() {
            return Ok(pages);
        }
    }
    Err(broken(format!("{scope:?} has no end after {MOST_PAGES} pages")))
}

async fn all_assets(connection: &Connection, scope: &ScopeId) -> Result<Vec<Observed>, Miss> {
    Ok(all_pages(connection, scope).await?.into_iter().flat_map(|page| page.assets).collect())
}

async fn stable_scopes(subject: &dyn Subject) -> Tried {
    let connection = open(subject).await?;
    let first = connection.inventory.scopes().await?;
    let again = connection.inventory.scopes().await?;
    let anew = open(subject).await?.inventory.scopes().await?;
    expect(first == again && first == anew, || format!("{first:?}, then {again:?}, then {anew:?}"))?;
    let each: BTreeSet<&ScopeId> = first.iter().collect();
    expect(each.len() == first.len(), || format!("one is there twice: {first:?}"))?;
    let missing: Vec<ScopeId> = subject.contents().into_keys().filter(|scope| !each.contains(scope)).collect();
    expect(missing.is_empty(), || format!("not told: {missing:?}"))
}

async fn complete_pages(subject: &dyn Subject) -> Tried {
    let connection = open(subject).await?;
    for (scope, expected) in subject.contents() {
        let assets = all_assets(&connection, &scope).await?;
        let found: BTreeSet<String> = assets.iter().map(|asset| asset.external_id.clone()).collect();
        expect(found.len() == assets.len(), || format!("{scope:?} names an asset twice"))?;
        expect(found == expected, || {
            let (less, more) = (expected.difference(&found).take(3), found.difference(&expected).take(3));
            format!("{scope:?}: missing {:?}, not there {:?}", less.collect::<Vec<_>>(), more.collect::<Vec<_>>())
        })?;
        let foreign = assets.iter().find(|asset| asset.kind != scope.kind);
        expect(foreign.is_none(), || format!("{scope:?} lists {foreign:?}"))?;
    }
    Ok(())
}

async fn resumed_pages(subject: &dyn Subject) -> Tried {
    let scope = subject.scope();
    let pages = all_pages(&open(subject).await?, &scope).await?;
    let Some(token) = pages.first().and_then(|page| page.next.clone()) else {
        return Err(broken("everything is on one page"));
    };
    // another worker goes on where the first one was
    let second = open(subject).await?.inventory.list(&scope, Some(&token)).await?;
    let expected = pages.get(1).map(|page| &page.assets);
    expect(expected == Some(&second.assets), || "the second page is another to somebody else".to_owned())
}

async fn expired_page(subject: &dyn Subject) -> Tried {
    let scope = subject.scope();
    let connection = open(subject).await?;
    let first = connection.inventory.list(&scope, None).await?;
    let token = first.next.ok_or(Miss::Untried)?;
    subject.expire_pages().await.ok_or(Miss::Untried)?;
    let answer = connection.inventory.list(&scope, Some(&token)).await;
    expect(answer == Err(ProviderError::PageExpired), || told(&answer))
}

async fn named_permission(subject: &dyn Subject) -> Tried {
    let connection = open(subject).await?;
    let expected = subject.deny().await.ok_or(Miss::Untried)?;
    let answer = connection.inventory.list(&subject.scope(), None).await;
    let named =
        matches!(&answer, Err(ProviderError::Denied { permission, .. }) if permission.as_ref() == Some(&expected));
    expect(named, || format!("{expected} is missing: {}", told(&answer)))
}

async fn retry_after(subject: &dyn Subject) -> Tried {
    let connection = open(subject).await?;
    subject.throttle(RETRY_AFTER).await.ok_or(Miss::Untried)?;
    let answer = connection.inventory.list(&subject.scope(), None).await;
    let told_when =
        matches!(&answer, Err(ProviderError::Throttled { retry_after: Some(after), .. }) if *after == RETRY_AFTER);
    expect(told_when, || told(&answer))
}

async fn vanished_asset(subject: &dyn Subject) -> Tried {
    let (connection, scope) = (open(subject).await?, subject.scope());
    let details = connection.details.as_ref().filter(|details| details.cadence(&scope.kind).is_some());
    let details = details.ok_or(Miss::Untried)?;
    let mut gone = one(&connection, &scope).await?;
    gone.name.push_str("-gone");
    gone.external_id.push_str("-gone");
    let answer = details.complete(&scope, gone).await;
    let not_found = matches!(&answer, Err(ProviderError::Rejected { code, .. }) if code == NOT_FOUND);
    expect(not_found, || told(&answer))
}

async fn closed_gate(subject: &dyn Subject) -> Tried {
    struct Closed;
    impl Pass for Closed {
        fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + '_>> {
            Box::pin(std::future::ready(Err(Stopped::Canceled)))
        }
    }
    let scope = subject.scope();
    let before = subject.requests();
    let gate = Gate::new(Arc::new(Closed));
    // a cloud may be opened by asking, which must not be done either
    let connection = match subject.connect(gate).await {
        Ok(connection) => connection,
        Err(ProviderError::Stopped(Stopped::Canceled)) => return unasked(subject, before),
        Err(error) => return Err(error.into()),
    };
    let answer = connection.inventory.list(&scope, None).await;
    expect(answer == Err(ProviderError::Stopped(Stopped::Canceled)), || told(&answer))?;
    if let Some(accounts) = &connection.accounts {
        let answer = accounts.list().await;
        expect(answer == Err(ProviderError::Stopped(Stopped::Canceled)), || told(&answer))?;
    }
    if let Some(login) = &connection.login {
        let answer = login.identity().await;
        let stopped = matches!(answer, Ok(_) | Err(ProviderError::Stopped(Stopped::Canceled)));
        expect(stopped, || told(&answer))?;
    }
    unasked(subject, before)
}

fn unasked(subject: &dyn Subject, before: Option<usize>) -> Tried {
    let after = subject.requests();
    expect(before == after, || format!("{before:?} requests before, {after:?} after"))
}

async fn visible_change(subject: &dyn Subject) -> Tried {
    let (connection, scope) = (open(subject).await?, subject.scope());
    let details = connection.details.as_ref().filter(|details| details.cadence(&scope.kind).is_some());
    if details.is_some_and(|details| !details.has_change_token(&scope.kind)) {
        return Err(Miss::Untried);
    }
    let entries = |assets: Vec<Observed>| -> BTreeMap<String, Observed> {
        assets.into_iter().map(|asset| (asset.external_id.clone(), asset)).collect()
    };
    let before = entries(all_assets(&connection, &scope).await?);
    let same = entries(all_assets(&connection, &scope).await?);
    expect(before == same, || "an unchanged asset looks changed".to_owned())?;
    let changed = subject.change().await.ok_or(Miss::Untried)?;
    let after = entries(all_assets(&open(subject).await?, &scope).await?);
    let differing: Vec<&String> =
        after.iter().filter(|(id, asset)| before.get(*id) != Some(asset)).map(|(id, _)| id).collect();
    expect(differing == [&changed], || format!("{changed} changed, and seen were {differing:?}"))
}

async fn stable_details(subject: &dyn Subject) -> Tried {
    let (connection, scope) = (open(subject).await?, subject.scope());
    let details = connection.details.as_ref().filter(|details| details.cadence(&scope.kind).is_some());
    let details = details.ok_or(Miss::Untried)?;
    let listed = one(&connection, &scope).await?;
    let first = details.complete(&scope, listed.clone()).await?;
    let again = details.complete(&scope, listed.clone()).await?;
    expect(first == again, || format!("{first:?}, then {again:?}"))?;
    let kept = (&first.asset.external_id, &first.asset.kind, first.asset.asset_type);
    expect(kept == (&listed.external_id, &listed.kind, listed.asset_type), || format!("{listed:?} became {first:?}"))
}

async fn dates(subject: &dyn Subject) -> Tried {
    let (connection, scope) = (open(subject).await?, subject.scope());
    let (id, expected) = subject.dates().ok_or(Miss::Untried)?;
    let assets = all_assets(&connection, &scope).await?;
    let asset = assets.into_iter().find(|asset| asset.external_id == id).ok_or_else(|| broken(format!("no {id}")))?;
    let found = serde_json::to_value(&asset).map_err(|error| broken(error.to_string()))?;
    for (field, begins) in expected {
        let told = found.get(field).and_then(|value| value.as_str());
        let right = told.is_some_and(|text| text.starts_with(&begins));
        expect(right, || format!("{field} is {told:?}, and not {begins}"))?;
    }
    Ok(())
}

async fn no_value(subject: &dyn Subject) -> Tried {
    let values = subject.values();
    if values.is_empty() {
        return Err(Miss::Untried);
    }
    let connection = open(subject).await?;
    let mut told = String::new();
    for scope in connection.inventory.scopes().await? {
        for page in all_pages(&connection, &scope).await? {
            told.push_str(&format!("{page:?}"));
            let details = connection.details.as_ref().filter(|details| details.cadence(&scope.kind).is_some());
            let Some(details) = details else { continue };
            for asset in page.assets.into_iter().take(20) {
                told.push_str(&format!("{:?}", details.complete(&scope, asset).await));
            }
        }
    }
    let leaked = values.iter().find(|value| told.contains(value.as_str()));
    expect(leaked.is_none(), || format!("{leaked:?} was returned"))
}

async fn one(connection: &Connection, scope: &ScopeId) -> Result<Observed, Miss> {
    let page = connection.inventory.list(scope, None).await?;
    page.assets.into_iter().next().ok_or_else(|| broken(format!("{scope:?} is empty")))
}

fn told<T: Debug>(answer: &Result<T, ProviderError>) -> String {
    let text = format!("told was {answer:?}");
    text.chars().take(300).collect()
}
