//! How long a failed attempt waits before the next one.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(600);

/// Doubles with each attempt from 2 s up to 10 min, then takes a share of it between a half and the whole, so that jobs that
/// failed together do not come back together. A provider's own wish is honoured when it is longer.
///
/// `attempt` counts from 1; `jitter` lies in 0..1.
pub fn after(attempt: u32, jitter: f64, provider: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(20))).min(LONGEST);
    let own = doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    provider.map_or(own, |wish| wish.max(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_cap_and_never_overflows() {
        assert_eq!(after(1, 1.0, None), Duration::from_secs(2));
        assert_eq!(after(1, 0.0, None), Duration::from_secs(1));
        assert_eq!(after(4, 1.0, None), Duration::from_secs(16));
        assert_eq!(after(u32::MAX, 1.0, None), LONGEST);
        assert_eq!(after(0, 1.0, None), FIRST);
    }

    #[test]
    fn a_longer_wish_of_the_provider_counts() {
        assert_eq!(after(1, 1.0, Some(Duration::from_secs(45))), Duration::from_secs(45));
        assert_eq!(after(5, 1.0, Some(Duration::from_secs(1))), Duration::from_secs(32));
    }
}
