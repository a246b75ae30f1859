//! What every cloud that is reached over HTTP shares: the gate before each request, the pace, and the waiting between two attempts.
//!
//! A cloud's own SDK is told not to retry. One place decides instead, so that `Retry-After` is honoured whatever the SDK
//! makes of it, every attempt has its turn in the budget that all workers share, a wait ends as soon as the job must, and none is so
//! long that the job should rather give its slot back.

use async_trait::async_trait;
use chrono::DateTime;
use keywright_jobs::{
    pacing::{Ask, Call, PATIENCE, Permit, Reply},
    provider::{Gate, ProviderError, Stopped},
};
use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// The most that one call waits between its attempts, all waits together. Beyond it the job is put off instead.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same for a call that is throttled: its job comes back as if nothing had happened.
const LONGEST_THROTTLED: Duration = PATIENCE;
/// How long a call waits until it asks again for its turn, when nothing tells it sooner.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a wait goes on before it asks the gate again.
const WAIT_SLICE: Duration = Duration::from_millis(500);
/// Attempts at a call that fails for a passing reason.
const ATTEMPTS_UNAVAILABLE: u32 = 4;
/// Attempts at a call that is throttled; [`LONGEST_THROTTLED`] usually ends it before.
const ATTEMPTS_THROTTLED: u32 = 10;
const FIRST_WAIT_UNAVAILABLE: Duration = Duration::from_millis(250);
const FIRST_WAIT_THROTTLED: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

/// Lets time pass.
#[async_trait]
pub trait Sleeper: Send + Sync {
    async fn sleep(&self, duration: Duration);
}

/// The timer of the runtime.
pub struct RuntimeTimer;

#[async_trait]
impl Sleeper for RuntimeTimer {
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The way out to one cloud for one attempt of a job.
pub struct Outbound {
    gate: Gate,
    refused: OnceLock<Stopped>,
    sleeper: Arc<dyn Sleeper>,
}

impl Outbound {
    pub fn new(gate: Gate, sleeper: Arc<dyn Sleeper>) -> Self {
        Self { gate, refused: OnceLock::new(), sleeper }
    }

    /// To be awaited immediately before a request is handed to the HTTP client.
    ///
    /// A refusal is final, and is remembered: an SDK may bury it under errors of its own.
    ///
    /// # Errors
    /// [`Stopped`] when nothing more may be sent.
    pub async fn pass(&self) -> Result<(), Stopped> {
        if let Some(stopped) = self.refused.get() {
            return Err(*stopped);
        }
        self.gate.pass().await.inspect_err(|stopped| {
            // a second refusal adds nothing to the first
            let _ = self.refused.set(*stopped);
        })
    }

    /// Runs `attempt` until it succeeds, fails for good, or has waited long enough.
    ///
    /// `what` names the call, e.g. `eu-west-1 secretsmanager:ListSecrets`: the scope and the operation by which its pace is found in
    /// docs/QUOTAS.md. Calls of different names that are throttled together come back at different moments.
    ///
    /// # Errors
    /// The last attempt's error; [`ProviderError::Throttled`] also when its turn is too far away to be waited for here; or
    /// [`ProviderError::Stopped`] once the gate has refused.
    pub async fn call<T, F, A>(&self, what: &str, mut attempt: F) -> Result<T, ProviderError>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, ProviderError>>,
    {
        let call = self.gate.pacer().map(|pacer| pacer.call(what));
        let mut waited = Duration::ZERO;
        let mut number = 0;
        loop {
            number += 1;
            let permit = match &call {
                Some(call) => Some(self.turn(call, what).await?),
                None => None,
            };
            self.pass().await?;
            let sent = Instant::now();
            let tried = attempt().await;
            if let Some(permit) = permit {
                permit.ended(sent, reply(&tried)).await;
            }
            let error = match tried {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Some(stopped) = self.refused.get() {
                return Err((*stopped).into());
            }
            let Some(wait) = next_wait(&error, number, waited, spread(what, number)) else { return Err(error) };
            tracing::debug!(call = what, attempt = number, ?wait, %error, "the cloud call is tried again after a wait");
            self.wait(wait).await?;
            waited += wait;
            if let Some(call) = call.as_ref().filter(|_| matches!(error, ProviderError::Throttled { .. })) {
                call.waited(wait);
            }
        }
    }

    /// Runs `attempt` once, after its turn: who asked for a change must find out what became of it before it is sent again.
    ///
    /// # Errors
    /// The attempt's; [`ProviderError::Throttled`] when its turn is too far away; [`ProviderError::Stopped`] once the gate has
    /// refused.
    pub async fn once<T>(
        &self,
        what: &str,
        attempt: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let call = self.gate.pacer().map(|pacer| pacer.call(what));
        let permit = match &call {
            Some(call) => Some(self.turn(call, what).await?),
            None => None,
        };
        self.pass().await?;
        let sent = Instant::now();
        let tried = attempt.await;
        if let Some(permit) = permit {
            permit.ended(sent, reply(&tried)).await;
        }
        match self.refused.get() {
            Some(stopped) if tried.is_err() => Err((*stopped).into()),
            _ => tried,
        }
    }

    /// Waits for the call's turn in the budget that all workers share.
    async fn turn(&self, call: &Call, what: &str) -> Result<Permit, ProviderError> {
        let began = Instant::now();
        loop {
            match call.ask().await {
                Ask::Go(slot, permit) => {
                    self.wait(slot.saturating_duration_since(Instant::now())).await?;
                    call.waited(began.elapsed());
                    return Ok(permit);
                }
                Ask::Full => {
                    tokio::select! {
                        () = call.freed() => {}
                        () = self.sleeper.sleep(ASK_AGAIN) => {}
                    }
                }
                Ask::Later(wait) => {
                    let detail =
                        format!("the rate of {what} is used up, or was lowered because the provider throttled");
                    return Err(ProviderError::Throttled { detail, retry_after: Some(wait) });
                }
                Ask::Unknown => self.sleeper.sleep(ASK_AGAIN).await,
            }
            self.pass().await?;
        }
    }

    /// Lets time pass, in which the gate may refuse.
    ///
    /// # Errors
    /// [`Stopped`] when the attempt must end.
    pub async fn wait(&self, mut left: Duration) -> Result<(), Stopped> {
        while !left.is_zero() {
            let slice = left.min(WAIT_SLICE);
            self.sleeper.sleep(slice).await;
            left -= slice;
            self.pass().await?;
        }
        Ok(())
    }
}

/// What the pace is to make of an attempt.
fn reply<T>(tried: &Result<T, ProviderError>) -> Reply {
    match tried {
        Ok(_) => Reply::Answered,
        Err(ProviderError::Throttled { retry_after, .. }) => Reply::Throttled { retry_after: *retry_after },
        Err(ProviderError::Unavailable { .. }) => Reply::Failed("unavailable"),
        Err(ProviderError::Denied { .. }) => Reply::Failed("denied"),
        Err(ProviderError::Unauthenticated { .. }) => Reply::Failed("unauthenticated"),
        Err(ProviderError::PageExpired) => Reply::Failed("page_expired"),
        Err(ProviderError::Rejected { .. }) => Reply::Failed("rejected"),
        Err(ProviderError::Stopped(_)) => Reply::Failed("stopped"),
    }
}

/// How long to wait before the next attempt, or `None` when there is to be none.
///
/// `number` counts the attempts made; `spread` is in 0..1 and keeps calls that failed together from coming back together.
fn next_wait(error: &ProviderError, number: u32, waited: Duration, spread: f64) -> Option<Duration> {
    let (wait, attempts, longest) = match error {
        // asking earlier than told only makes it longer, so the spread is only ever added
        ProviderError::Throttled { retry_after: Some(told), .. } => {
            let added = told.mul_f64(0.1).min(Duration::from_secs(1)).mul_f64(spread);
            (told.saturating_add(added), ATTEMPTS_THROTTLED, LONGEST_THROTTLED)
        }
        ProviderError::Throttled { retry_after: None, .. } => {
            (backoff(FIRST_WAIT_THROTTLED, number, spread), ATTEMPTS_THROTTLED, LONGEST_THROTTLED)
        }
        ProviderError::Unavailable { .. } => {
            (backoff(FIRST_WAIT_UNAVAILABLE, number, spread), ATTEMPTS_UNAVAILABLE, LONGEST_WAIT)
        }
        ProviderError::Denied { .. }
        | ProviderError::Unauthenticated { .. }
        | ProviderError::PageExpired
        | ProviderError::Rejected { .. }
        | ProviderError::Stopped(_) => return None,
    };
    (number < attempts && waited.saturating_add(wait) <= longest).then_some(wait)
}

/// Exponential, of which the upper half is spread.
fn backoff(first: Duration, number: u32, spread: f64) -> Duration {
    let doubled = 2u32.saturating_pow(number.saturating_sub(1));
    first.saturating_mul(doubled).min(LONGEST_BACKOFF).mul_f64(0.5 + spread / 2.0)
}

/// A number in 0..1 that depends on nothing but its arguments, so that a run can be repeated exactly.
fn spread(what: &str, number: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (what, number).hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() >> 48).unwrap_or(0)) / f64::from(u16::MAX)
}

/// How long the reply says to wait: `Retry-After` (RFC 9110, 10.2.3) in seconds or as a date.
///
/// A date is taken relative to the reply's own `Date`, so that a wrong clock here does not matter; without one it is ignored.
pub fn retry_after(retry_after: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let told = retry_after?.trim();
    if let Ok(seconds) = told.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(told).ok()?;
    let from = DateTime::parse_from_rfc2822(date?.trim()).ok()?;
    // a moment that has passed already means now
    Some((until - from).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywright_jobs::provider::Pass;
    use std::{
        future::ready,
        pin::Pin,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    #[derive(Default)]
    struct NoWait(Mutex<Vec<Duration>>);

    #[async_trait]
    impl Sleeper for NoWait {
        async fn sleep(&self, duration: Duration) {
            self.0.lock().unwrap().push(duration);
        }
    }

    /// Lets so many requests through, then refuses.
    struct Closing(AtomicUsize);

    impl Pass for Closing {
        fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + '_>> {
            let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            Box::pin(ready(left.map(|_| ()).map_err(|_| Stopped::Canceled)))
        }
    }

    fn throttled(seconds: Option<u64>) -> ProviderError {
        ProviderError::Throttled { detail: "slow down".into(), retry_after: seconds.map(Duration::from_secs) }
    }

    fn unavailable() -> ProviderError {
        ProviderError::Unavailable { detail: "503".into() }
    }

    fn outbound(gate: Gate) -> (Outbound, Arc<NoWait>) {
        let timer = Arc::new(NoWait::default());
        (Outbound::new(gate, timer.clone()), timer)
    }

    #[tokio::test]
    async fn a_retry_after_is_waited_out_and_then_the_call_succeeds() {
        let (outbound, timer) = outbound(Gate::open());
        let replies = Mutex::new(vec![Ok(7), Err(throttled(Some(1))), Err(throttled(Some(2)))]);
        let got = outbound.call("list", || ready(replies.lock().unwrap().pop().unwrap())).await;
        assert_eq!(got, Ok(7));
        let waited: Duration = timer.0.lock().unwrap().iter().sum();
        assert!(waited >= Duration::from_secs(3) && waited <= Duration::from_millis(3500), "{waited:?}");
    }

    #[tokio::test]
    async fn a_long_retry_after_is_handed_on_instead_of_waited_out() {
        let (outbound, timer) = outbound(Gate::open());
        let got: Result<(), _> = outbound.call("list", || ready(Err(throttled(Some(6))))).await;
        assert_eq!(got, Err(throttled(Some(6))));
        assert!(timer.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn attempts_at_a_broken_service_are_bounded() {
        let (outbound, _) = outbound(Gate::open());
        let calls = AtomicUsize::new(0);
        let got: Result<(), _> = outbound
            .call("list", || {
                calls.fetch_add(1, Ordering::SeqCst);
                ready(Err(unavailable()))
            })
            .await;
        assert_eq!(got, Err(unavailable()));
        assert_eq!(calls.into_inner(), 4);
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_gate_refuses() {
        // one pass for the first attempt, three for slices of the wait
        let (outbound, timer) = outbound(Gate::new(Arc::new(Closing(AtomicUsize::new(4)))));
        let got: Result<(), _> = outbound.call("list", || ready(Err(throttled(Some(4))))).await;
        assert_eq!(got, Err(ProviderError::Stopped(Stopped::Canceled)));
        assert_eq!(timer.0.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_refusal_seen_inside_the_attempt_wins_over_its_error() {
        let (outbound, _) = outbound(Gate::new(Arc::new(Closing(AtomicUsize::new(1)))));
        let got: Result<(), _> = outbound
            .call("list", || async {
                let _ = outbound.pass().await;
                Err(ProviderError::Unauthenticated { detail: "no provider in the chain".into() })
            })
            .await;
        assert_eq!(got, Err(ProviderError::Stopped(Stopped::Canceled)));
    }

    #[test]
    fn the_wait_budget_covers_all_waits_of_a_call_together() {
        let told = throttled(Some(2));
        assert!(next_wait(&told, 1, Duration::ZERO, 0.0).is_some());
        assert!(next_wait(&told, 2, Duration::from_secs(3), 0.0).is_some());
        assert_eq!(next_wait(&told, 3, Duration::from_secs(4), 0.0), None);
        assert_eq!(next_wait(&throttled(Some(u64::MAX)), 1, Duration::ZERO, 0.9), None);
    }

    #[test]
    fn errors_that_asking_again_does_not_cure_are_final() {
        let denied = ProviderError::Denied { detail: String::new(), permission: None };
        assert_eq!(next_wait(&denied, 1, Duration::ZERO, 0.5), None);
        assert_eq!(next_wait(&ProviderError::PageExpired, 1, Duration::ZERO, 0.5), None);
    }

    #[test]
    fn backoff_grows_and_is_capped() {
        assert_eq!(backoff(Duration::from_secs(1), 1, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(Duration::from_secs(1), 4, 1.0), Duration::from_secs(8));
        assert_eq!(backoff(Duration::from_secs(1), 40, 0.0), Duration::from_secs(10));
    }

    #[test]
    fn spread_is_stable_within_bounds_and_differs_between_calls() {
        assert_eq!(spread("a", 1).to_bits(), spread("a", 1).to_bits());
        assert_ne!(spread("a", 1).to_bits(), spread("b", 1).to_bits());
        assert!((0..100).all(|number| (0.0..=1.0).contains(&spread("a", number))));
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(retry_after(Some(" 120 "), None), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(Some("Wed, 21 Oct 2015 07:28:30 GMT"), date), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(Some("Wed, 21 Oct 2015 07:27:00 GMT"), date), Some(Duration::ZERO));
        assert_eq!(retry_after(Some("Wed, 21 Oct 2015 07:28:30 GMT"), None), None);
        assert_eq!(retry_after(Some("soon"), date), None);
        assert_eq!(retry_after(Some("-1"), date), None);
        assert_eq!(retry_after(None, date), None);
    }
}
