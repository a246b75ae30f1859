//! What a licence says, and what follows from it at a certain time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The tiers, each with all that the one before has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Tier {
    Starter,
    Pro,
    Enterprise,
}

impl Tier {
    pub const ALL: &'static [Self] = &[Self::Starter, Self::Pro, Self::Enterprise];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starter => "STARTER",
            Self::Pro => "PRO",
            Self::Enterprise => "ENTERPRISE",
        }
    }

    /// How many there may be; none: any number.
    pub const fn most(self, limit: Limit) -> Option<u64> {
        match (self, limit) {
            (Self::Starter, Limit::Subscriptions) => Some(4),
            (Self::Starter, Limit::Users) => Some(1),
            (Self::Starter, Limit::ManualRotations) => Some(3),
            (Self::Pro, Limit::Subscriptions) => Some(20),
            _ => None,
        }
    }

    /// The lowest tier that has room for more than `most`.
    pub fn with_more(limit: Limit, most: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|tier| tier.most(limit).is_none_or(|more| more > most))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What there may be only so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Subscriptions that are not deleted, disabled ones included.
    Subscriptions,
    /// Users who are not disabled.
    Users,
    /// Rotations that somebody started by hand, in a calendar month (UTC).
    ManualRotations,
}

impl Limit {
    pub const ALL: &'static [Self] = &[Self::Subscriptions, Self::Users, Self::ManualRotations];

    /// Its name in a licence and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscriptions => "subscriptions",
            Self::Users => "users",
            Self::ManualRotations => "manualRotations",
        }
    }

    /// Under what its uses are counted at this time.
    pub fn counter(self, now: DateTime<Utc>) -> String {
        match self {
            Self::Subscriptions | Self::Users => self.as_str().to_owned(),
            Self::ManualRotations => format!("{}/{}", self.as_str(), now.format("%Y-%m")),
        }
    }
}

/// What a licence may have more of than its tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Extra {
    pub subscriptions: Option<u64>,
    pub users: Option<u64>,
    pub manual_rotations: Option<u64>,
}

impl Extra {
    const fn of(self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::Subscriptions => self.subscriptions,
            Limit::Users => self.users,
            Limit::ManualRotations => self.manual_rotations,
        }
    }
}

/// What a licence says. Its signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Names this licence: SHA-256 of what is signed, in hex.
    pub fingerprint: String,
    pub tier: Tier,
    pub licensee: Option<String>,
    pub issued_at: Option<DateTime<Utc>>,
    pub not_before: Option<DateTime<Utc>>,
    /// The first instant at which it is over; none: it has no end.
    pub expires_at: Option<DateTime<Utc>>,
    pub extra: Extra,
}

/// How a licence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No key is configured: nothing is gated.
    Ungated,
    /// A key is configured, and no licence.
    Missing,
    Valid,
    NotYetValid,
    Expired,
}

/// How the licence stands: `gated` = a key is configured. Without a licence in force the lowest tier holds.
pub fn state(gated: bool, terms: Option<&Terms>, now: DateTime<Utc>) -> State {
    match terms {
        _ if !gated => State::Ungated,
        None => State::Missing,
        Some(terms) if terms.expires_at.is_some_and(|end| end <= now) => State::Expired,
        Some(terms) if terms.not_before.is_some_and(|begin| begin > now) => State::NotYetValid,
        Some(_) => State::Valid,
    }
}

/// The tier in force.
pub fn tier(gated: bool, terms: Option<&Terms>, now: DateTime<Utc>) -> Tier {
    match (state(gated, terms, now), terms) {
        (State::Ungated, _) => Tier::Enterprise,
        (State::Valid, Some(terms)) => terms.tier,
        _ => Tier::Starter,
    }
}

/// How many there may be; none: any number. A licence adds to its tier and never takes away.
pub fn most(gated: bool, terms: Option<&Terms>, limit: Limit, now: DateTime<Utc>) -> Option<u64> {
    let of_tier = tier(gated, terms, now).most(limit)?;
    let extra = terms.filter(|_| state(gated, terms, now) == State::Valid).and_then(|terms| terms.extra.of(limit));
    Some(extra.map_or(of_tier, |extra| extra.max(of_tier)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(tier: Tier) -> Terms {
        Terms {
            fingerprint: "f".to_owned(),
            tier,
            licensee: None,
            issued_at: None,
            not_before: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            expires_at: Some("2027-01-01T00:00:00Z".parse().unwrap()),
            extra: Extra { subscriptions: Some(25), ..Extra::default() },
        }
    }

    #[test]
    fn a_licence_counts_from_its_beginning_until_its_end() {
        let pro = terms(Tier::Pro);
        for (now, expected, in_force, subscriptions) in [
            ("2025-12-31T23:59:59Z", State::NotYetValid, Tier::Starter, Some(4)),
            ("2026-01-01T00:00:00Z", State::Valid, Tier::Pro, Some(25)),
            ("2026-12-31T23:59:59Z", State::Valid, Tier::Pro, Some(25)),
            ("2027-01-01T00:00:00Z", State::Expired, Tier::Starter, Some(4)),
        ] {
            let now = now.parse().unwrap();
            assert_eq!((state(true, Some(&pro), now), tier(true, Some(&pro), now)), (expected, in_force), "{now}");
            assert_eq!(most(true, Some(&pro), Limit::Subscriptions, now), subscriptions, "{now}");
            // without a key nothing is gated, whatever lies about
            assert_eq!(tier(false, Some(&pro), now), Tier::Enterprise);
            assert_eq!(most(false, Some(&pro), Limit::Subscriptions, now), None);
        }
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!((state(true, None, now), tier(true, None, now)), (State::Missing, Tier::Starter));
        let endless = Terms { expires_at: None, not_before: None, ..terms(Tier::Enterprise) };
        assert_eq!(most(true, Some(&endless), Limit::Subscriptions, now), None);
        assert_eq!(most(true, Some(&endless), Limit::Users, now), None);
    }

    #[test]
    fn tiers_have_more_and_more() {
        for limit in Limit::ALL {
            let most: Vec<u64> = Tier::ALL.iter().map(|tier| tier.most(*limit).unwrap_or(u64::MAX)).collect();
            assert!(most.is_sorted(), "{limit:?}: {most:?}");
        }
        assert_eq!(Tier::with_more(Limit::Subscriptions, 4), Some(Tier::Pro));
        assert_eq!(Tier::with_more(Limit::Subscriptions, 20), Some(Tier::Enterprise));
        assert_eq!(Tier::with_more(Limit::Users, 1), Some(Tier::Pro));
        let months = ["2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"].map(|at| at.parse().unwrap());
        let counters = months.map(|now| Limit::ManualRotations.counter(now));
        assert_eq!(counters, ["manualRotations/2026-11", "manualRotations/2026-12"]);
    }
}
