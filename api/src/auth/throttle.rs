//! Guessing passwords gets slower with every wrong one, for whoever guesses. The counts are in the database, so that several
//! processes share them.
//!
//! Three things are slowed down, each by itself. *This account from this address*: soon. *This address*, whatever account it
//! tries, and *this account*, wherever from: only after many more failures, for less long, and not for an address from which
//! its user has logged in before. So an attacker holds up themselves, and even many of them do not hold up the user who
//! comes from where they always come from. A hard lock, for who must have one, holds up everybody.

use super::{Client, opaque};
use crate::error::{ApiError, Code};
use aws_lc_rs::hmac;
use keywright_entities::{clock, login_failures, session, user_account};
use keywright_jobs::setup::config::LoginLimits;
use sea_orm::{ConnectionTrait, DbErr};
use std::net::{IpAddr, Ipv6Addr};
use uuid::Uuid;

/// How many times the threshold an address may fail, over all accounts: many people may share one.
const ADDRESS_FACTOR: u32 = 10;
/// How many times the threshold an account may fail, over all addresses.
const ACCOUNT_FACTOR: u32 = 20;
/// The longest that an account from an address is held up, in seconds. Less than the shortest window.
const LONGEST: u32 = 300;
const LONGEST_ADDRESS: u32 = 60;
const LONGEST_ACCOUNT: u32 = 30;

/// Counts failures and holds up who causes them.
pub struct Throttle {
    limits: LoginLimits,
    /// Names that nobody has may be passwords typed into the wrong field: only their keyed hashes are kept.
    key: hmac::Key,
}

/// What one attempt counts for.
pub struct Attempt {
    pair: String,
    address: Option<String>,
    account: Option<String>,
    lock: Option<String>,
    user: Option<Uuid>,
    from: Option<String>,
}

impl Throttle {
    pub fn new(limits: LoginLimits, key: &[u8]) -> Self {
        Self { limits, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A login under this name, which is that of `user` if there is one.
    pub fn login(&self, name: &str, user: Option<Uuid>, client: &Client) -> Attempt {
        let (name, from) = (user_account::name_key(name), client.address.clone());
        let network = from.as_deref().map(network);
        Attempt {
            pair: self.id(&["pair", &name, network.as_deref().unwrap_or_default()]),
            address: network.map(|network| self.id(&["address", &network])),
            account: Some(self.id(&["account", &name])),
            lock: user.filter(|_| self.limits.lock_after > 0).map(lock),
            user,
            from,
        }
    }

    /// The present password, asked of somebody who is logged in: only they are slowed down.
    pub fn password(&self, user: Uuid) -> Attempt {
        let pair = self.id(&["password", &user.to_string()]);
        Attempt { pair, address: None, account: None, lock: None, user: Some(user), from: None }
    }

    /// Lets an attempt through that is not held up.
    ///
    /// # Errors
    /// 429 `rate_limited`.
    pub async fn admit(&self, db: &impl ConnectionTrait, attempt: &Attempt) -> Result<(), ApiError> {
        if self.limits.threshold == 0 && self.limits.lock_after == 0 {
            return Ok(());
        }
        let strict = [Some(&attempt.pair), attempt.lock.as_ref()];
        let ids: Vec<String> =
            strict.into_iter().flatten().chain(&attempt.address).chain(&attempt.account).cloned().collect();
        let blocked = login_failures::blocked(db, &ids).await?;
        let Some(longest) = blocked.first() else { return Ok(()) };
        let held = blocked.iter().find(|row| strict.contains(&Some(&row.id)));
        let held = match held {
            Some(held) => held,
            None if self.is_known(db, attempt).await? => return Ok(()),
            None => longest,
        };
        let rest = held.blocked_until - clock::now(db).await?;
        let seconds = u32::try_from(rest.num_milliseconds().max(1)).unwrap_or(u32::MAX).div_ceil(1000);
        let detail = format!("Too many failed logins. Try again in {seconds} s.");
        Err(ApiError::new(Code::RateLimited, detail).with_retry_after(seconds))
    }

    async fn is_known(&self, db: &impl ConnectionTrait, attempt: &Attempt) -> Result<bool, DbErr> {
        match (attempt.user, &attempt.from) {
            (Some(user), Some(from)) => session::began_at(db, user, from).await,
            _ => Ok(false),
        }
    }

    /// Counts a wrong password, in the caller's transaction.
    pub async fn failed(&self, db: &impl ConnectionTrait, attempt: &Attempt) -> Result<(), DbErr> {
        let window = i64::try_from(self.limits.window.as_millis()).unwrap_or(i64::MAX);
        let (first, seconds) = (self.limits.threshold, u32::try_from(self.limits.window.as_secs()).unwrap_or(u32::MAX));
        let mut counted: Vec<(&String, u32, u32)> = Vec::new();
        if first > 0 {
            counted.push((&attempt.pair, first, LONGEST));
            counted.extend(attempt.address.iter().map(|id| (id, first * ADDRESS_FACTOR, LONGEST_ADDRESS)));
            counted.extend(attempt.account.iter().map(|id| (id, first * ACCOUNT_FACTOR, LONGEST_ACCOUNT)));
        }
        // in one order everywhere, so that two transactions do not wait for each other
        counted.sort();
        for (id, first, longest) in counted {
            let failures = login_failures::count(db, id, window).await?;
            let delay = delay(u32::try_from(failures).unwrap_or(u32::MAX), first, longest);
            if delay > 0 {
                login_failures::block(db, id, i64::from(delay) * 1000).await?;
            }
        }
        if let Some(id) = &attempt.lock {
            let failures = login_failures::count(db, id, window).await?;
            if u32::try_from(failures).is_ok_and(|failures| failures >= self.limits.lock_after) {
                login_failures::block(db, id, i64::from(seconds) * 1000).await?;
            }
        }
        Ok(())
    }

    /// Forgets what this account from this address did wrong. What the address or others did stays counted.
    pub async fn succeeded(&self, db: &impl ConnectionTrait, attempt: &Attempt) -> Result<(), DbErr> {
        let ids: Vec<String> = std::iter::once(&attempt.pair).chain(&attempt.lock).cloned().collect();
        login_failures::forget(db, &ids).await
    }

    fn id(&self, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        hex::encode(context.sign())
    }
}

/// Ends a hard lock.
pub async fn unlock(db: &impl ConnectionTrait, user: Uuid) -> Result<(), DbErr> {
    login_failures::forget(db, &[lock(user)]).await
}

fn lock(user: Uuid) -> String {
    opaque::hash(&format!("lock {user}"))
}

/// What an address can easily change to is one: of IPv6 the /64 that a customer has.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string(),
        Ok(address) => address.to_string(),
        Err(_) => address.to_owned(),
    }
}

/// Seconds to wait after so many failures: nothing before the first that counts, then doubling up to the longest.
fn delay(failures: u32, first: u32, longest: u32) -> u32 {
    match failures.checked_sub(first) {
        None => 0,
        Some(more) => 1_u32.checked_shl(more).unwrap_or(longest).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_begin_at_the_threshold_and_double_to_the_longest() {
        let delays: Vec<_> = (0..16).map(|failures| delay(failures, 5, 300)).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(delay(u32::MAX, 5, 300), 300);
        assert_eq!(delay(37, 5, 300), 300);
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:3::9"), network("2001:db8:1:2::9"));
    }
}
