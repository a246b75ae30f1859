//! Each outside call of a rotation: how it is made, and what its answer means to the machine.

use crate::{
    domain::rotation::{Call, Current, Live, Outcome, Pending, Refusal, Rotation, Seen, Who},
    provider::{
        NOT_FOUND, ProviderError,
        rotation::{MOVED, POLICY, Parts, Prepared, QUOTA, SecretValue},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::HashSet, time::Duration};

/// When a provider that said no more than "too many" is asked again.
const THROTTLED: Duration = Duration::from_secs(5);

/// What a call made, beside its outcome.
pub(super) struct Made {
    pub outcome: Outcome,
    /// The value that the provider showed once.
    pub shown: Option<SecretValue>,
}

/// What is known of the rotation beside the record.
pub(super) struct Known {
    /// The candidate's value, while it is sealed with us.
    pub candidate: Option<SecretValue>,
    /// Names the pending version, so that staging again makes no second one.
    pub token: String,
    /// Ids that rotations of this identity recorded.
    pub ours: HashSet<String>,
}

/// A rotation at the moment of a call.
pub(super) struct At<'a> {
    pub parts: &'a Parts,
    pub record: &'a Rotation,
    pub known: &'a Known,
}

impl At<'_> {
    /// Makes one call. What it may mean is decided by [`crate::domain::rotation::after`].
    ///
    /// # Errors
    /// [`ProviderError::Stopped`] alone: the attempt must end; everything else is an outcome.
    pub async fn make(&self, call: Call, now: DateTime<Utc>) -> Result<Made, ProviderError> {
        let mut shown = None;
        let told = match call {
            Call::Mint if !self.record.reversed => self.mint(&mut shown).await,
            other => self.ask(other).await,
        };
        Ok(Made { outcome: outcome(told, now)?, shown })
    }

    async fn ask(&self, call: Call) -> Result<Outcome, ProviderError> {
        let (issuer, store, record) = (&*self.parts.issuer, &*self.parts.store, self.record);
        let done = |id: Option<String>| Outcome::Done { id };
        Ok(match call {
            Call::Inspect => Outcome::Seen(self.inspect().await?),
            // the way back: what was switched off is switched on
            Call::Mint => issuer.set_active(self.id(Who::Candidate), true).await.map(|()| done(None))?,
            Call::Stage => done(Some(store.stage(&self.known.token, &self.candidate().await?).await?)),
            Call::Prove => self.prove().await?,
            Call::ProveStored => self.prove_stored().await?,
            Call::Promote => {
                let (expected, version) = (record.previous_version.as_deref(), record.candidate_version.as_deref());
                done(Some(store.promote(expected, version, &self.candidate().await?).await?))
            }
            Call::Push => done(None),
            Call::LastUsed => Outcome::LastUsed(issuer.last_used(self.id(Who::Previous)).await?),
            Call::Disable(who) => issuer.set_active(self.id(who), false).await.map(|()| done(None))?,
            Call::Enable(who) => issuer.set_active(self.id(who), true).await.map(|()| done(None))?,
            Call::Delete(who) => issuer.delete(self.id(who)).await.map(|()| done(None))?,
            Call::Unstage => {
                // without an answer to staging it has the name that it was asked to have
                let version = record.candidate_version.as_deref().unwrap_or(&self.known.token);
                store.unstage(version).await.map(|()| done(None))?
            }
            Call::Revert => self.revert().await.map(|()| done(None))?,
        })
    }

    /// Where nobody is told about a value, the store's versions are the credentials.
    fn id(&self, who: Who) -> &str {
        let record = self.record;
        let id = match who {
            _ if self.parts.issuer.abilities().applies => record.id_of(who),
            Who::Previous => record.previous_version.as_deref(),
            Who::Candidate => record.candidate_version.as_deref(),
            Who::Orphan => None,
        };
        id.unwrap_or_default()
    }

    async fn mint(&self, shown: &mut Option<SecretValue>) -> Result<Outcome, ProviderError> {
        let issuer = &*self.parts.issuer;
        if issuer.abilities().ours {
            let id = self.record.candidate.clone().unwrap_or_default();
            let prepared = Prepared { id, value: self.candidate().await? };
            let (id, _) = issuer.mint(Some(&prepared), None).await?;
            return Ok(Outcome::Done { id: Some(id) });
        }
        // what stays of the present value must be known before there is a new one, which is shown once
        let version = self.record.previous_version.as_deref().unwrap_or_default();
        let in_use = self.parts.store.read(version).await?;
        let (id, value) = issuer.mint(None, Some(&in_use)).await?;
        *shown = Some(value);
        Ok(Outcome::Done { id: Some(id) })
    }

    /// What the identity has and what the store holds. Both are compared with the record here, where values may be seen.
    async fn inspect(&self) -> Result<Seen, ProviderError> {
        let Self { parts, record, known } = self;
        let abilities = parts.issuer.abilities();
        let listed = if abilities.applies { parts.issuer.list().await? } else { Vec::new() };
        let held = parts.store.held().await?;
        let mut current = match held.current.as_deref() {
            version if version == record.previous_version.as_deref() => Current::Expected,
            version if version.is_some() && version == record.candidate_version.as_deref() => Current::Candidate,
            _ => Current::Other,
        };
        // a store that names versions itself may hold ours under a name that nobody heard of
        if let (Current::Other, Some(version), false) = (&current, &held.current, parts.store.stages())
            && (known.candidate.is_some() || record.candidate_version.is_some())
            && parts.store.read(version).await?.is(&self.candidate().await?)
        {
            current = Current::Candidate;
        }
        let pending = match held.pending.as_deref() {
            None => Pending::Nothing,
            Some(version) if version == known.token || known.ours.contains(version) => Pending::Ours,
            Some(_) => Pending::Strange,
        };
        let live = listed.into_iter().map(|listed| Live {
            ours: known.ours.contains(&listed.id),
            active: listed.active,
            used: listed.last_used_at.is_some(),
            id: listed.id,
        });
        Ok(Seen { live: live.collect(), limit: abilities.limit, current, version: held.current, pending })
    }

    /// The candidate's value: sealed with us, or, once the store has it, from there.
    async fn candidate(&self) -> Result<SecretValue, ProviderError> {
        match (&self.known.candidate, self.record.candidate_version.as_deref()) {
            (Some(value), _) if !self.record.reversed => Ok(value.clone()),
            (_, Some(version)) => self.parts.store.read(version).await,
            _ => Err(ProviderError::Rejected {
                code: "candidate_lost".to_owned(),
                detail: "the new credential's value is neither sealed nor stored".to_owned(),
            }),
        }
    }

    async fn prove(&self) -> Result<Outcome, ProviderError> {
        let value = self.candidate().await?;
        if self.parts.issuer.abilities().applies {
            return verdict(self.parts.issuer.prove(&value).await);
        }
        // nobody checks it but its readers: they must get what was made
        let Some(version) = self.record.candidate_version.as_deref() else { return Ok(Outcome::Works) };
        verdict(self.parts.store.read(version).await.map(|stored| stored.is(&value)))
    }

    async fn prove_stored(&self) -> Result<Outcome, ProviderError> {
        let Some(version) = self.parts.store.held().await?.current else { return Ok(Outcome::Fails) };
        let value = self.parts.store.read(&version).await?;
        if !self.parts.issuer.abilities().applies {
            return Ok(Outcome::Works);
        }
        verdict(self.parts.issuer.prove(&value).await)
    }

    /// Sets what the store says is current once more: there is but one slot, and the candidate is in it.
    async fn revert(&self) -> Result<(), ProviderError> {
        let (Some(version), Some(id)) = (&self.record.previous_version, &self.record.previous) else { return Ok(()) };
        let value = self.parts.store.read(version).await?;
        self.parts.issuer.mint(Some(&Prepared { id: id.clone(), value }), None).await.map(|_| ())
    }
}

fn verdict(proved: Result<bool, ProviderError>) -> Result<Outcome, ProviderError> {
    proved.map(|works| if works { Outcome::Works } else { Outcome::Fails })
}

/// An error that says for certain that nothing happened is a refusal; any other leaves it open.
fn outcome(told: Result<Outcome, ProviderError>, now: DateTime<Utc>) -> Result<Outcome, ProviderError> {
    let refusal = match told {
        Ok(outcome) => return Ok(outcome),
        Err(ProviderError::Unavailable { .. } | ProviderError::PageExpired) => return Ok(Outcome::Unknown),
        Err(stopped @ ProviderError::Stopped(_)) => return Err(stopped),
        Err(ProviderError::Denied { permission, detail }) => Refusal::Denied(permission.unwrap_or(detail)),
        Err(ProviderError::Unauthenticated { detail }) => Refusal::Rejected(detail),
        Err(ProviderError::Throttled { retry_after, .. }) => {
            let after = TimeDelta::from_std(retry_after.unwrap_or(THROTTLED)).unwrap_or(TimeDelta::seconds(5));
            Refusal::Throttled { until: now + after }
        }
        Err(ProviderError::Rejected { code, .. }) => match code.as_str() {
            NOT_FOUND => Refusal::NotFound,
            MOVED => Refusal::Conflict,
            QUOTA => Refusal::Quota,
            POLICY => Refusal::Policy,
            _ => Refusal::Rejected(code),
        },
    };
    Ok(Outcome::Refused(refusal))
}
