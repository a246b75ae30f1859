//! One open stream: what it was missed first, then what happens.

use super::{
    Pace,
    wire::{self, JobEvent},
};
use crate::{auth::vigil::Watched, error::ApiError, routes::jobs::JobView};
use keywright_entities::job;
use keywright_jobs::{
    queue::{
        events::Happened,
        feed::{Feed, Following, Interest, News, Progress},
    },
    setup::database::Database,
};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// After how long a client that was sent away by a shutdown should come again.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// Before the table is read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How a stream begins.
pub(super) enum Start {
    Open,
    /// The client has all of it.
    Over,
}

pub(super) struct Follow {
    feed: Feed,
    interest: Interest,
    following: Following,
    watched: Watched,
    draining: CancellationToken,
    pace: Pace,
    heartbeat: Interval,
    /// Not before this instant there is progress again.
    progress_at: Instant,
    /// The last event that the client was sent, or has.
    after: i64,
    /// There may be events in the table that the feed did not tell.
    behind: bool,
    /// Frames to be sent.
    ready: VecDeque<String>,
    /// So many of them may be sent whenever the rights were looked at last: it was after they had come.
    cleared: usize,
    /// Nothing comes after what is ready.
    ended: bool,
}

impl Follow {
    pub(super) async fn new(
        feed: Feed,
        interest: Interest,
        watched: Watched,
        pace: Pace,
        draining: CancellationToken,
    ) -> Result<Self, ApiError> {
        let following = feed.follow(&interest).await?;
        let mut heartbeat = interval_at(tokio::time::Instant::now() + pace.heartbeat, pace.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            feed,
            interest,
            following,
            watched,
            draining,
            pace,
            heartbeat,
            progress_at: Instant::now(),
            after: 0,
            behind: false,
            ready: VecDeque::new(),
            cleared: 0,
            ended: false,
        })
    }

    /// Begins after the last event that the client has, or now.
    pub(super) async fn begin(&mut self, last: Option<i64>) -> Result<(), ApiError> {
        let (first, newest) = self.feed.bounds().await?;
        match last {
            Some(last) if !is_gap(last, first, newest) => (self.after, self.behind) = (last, true),
            missed => {
                self.after = newest;
                if missed.is_some() {
                    self.ready.push_back(wire::frame(Some(newest), &JobEvent::reset(None)));
                }
            }
        }
        Ok(())
    }

    /// Begins with what the client does not have of `job`, which was read before.
    pub(super) async fn begin_with_job(
        &mut self,
        database: &Database,
        job: &job::Model,
        last: Option<i64>,
    ) -> Result<Start, ApiError> {
        let (first, newest) = self.feed.bounds().await?;
        let gap = last.is_some_and(|last| is_gap(last, first, newest));
        self.after = last.unwrap_or(0);
        self.behind = true;
        if !gap {
            let (events, _) = self.feed.read(&self.interest, self.after).await?;
            match events.first() {
                // it had ended when it was looked for, so that its end has its number
                None if last.is_some() && job.state.is_done() => return Ok(Start::Over),
                _ if last.is_some() => return Ok(Start::Open),
                Some(made) if made.event.job_id == job.id && made.event.version == 1 => return Ok(Start::Open),
                _ => {}
            }
        }
        // what was before this number is in the row
        let now = job::by_id(database.reader(), job.id).await?.ok_or_else(|| ApiError::not_found("job"))?;
        let view = JobView::read(database.reader(), now).await?;
        self.after = newest;
        if gap {
            self.ready.push_back(wire::frame(Some(newest), &JobEvent::reset(Some(&view))));
        }
        self.ended = view.done;
        self.ready.push_back(wire::frame(Some(newest), &JobEvent::as_it_is(view)));
        Ok(Start::Open)
    }

    /// The next frame; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            // also when the client is slow to take what is ready: what it is not sent now it gets when it comes again
            if self.draining.is_cancelled() {
                return self.farewell();
            }
            if self.watched.is_due() && !self.watched.stays().await {
                return None;
            }
            if self.cleared == 0 && !self.ready.is_empty() && self.watched.is_doubtful() {
                tokio::select! {
                    biased;
                    () = self.draining.cancelled() => {}
                    () = self.watched.looked() => self.cleared = self.ready.len(),
                    _ = self.heartbeat.tick() => return Some(wire::HEARTBEAT.to_owned()),
                }
                continue;
            }
            if let Some(frame) = self.ready.pop_front() {
                self.cleared = self.cleared.saturating_sub(1);
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            if self.behind {
                self.read_on().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.draining.cancelled() => {}
                stays = self.watched.stays() => if !stays {
                    return None;
                },
                _ = self.heartbeat.tick() => return Some(wire::HEARTBEAT.to_owned()),
                news = self.following.news(self.progress_at) => match news {
                    News::Event(happened) => self.tell(&happened),
                    News::Progress(progress) => self.tell_progress(&progress),
                    News::LetGo => self.come_again().await,
                },
            }
        }
    }

    fn farewell(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.ended, true) && self.ready.is_empty() {
            return None;
        }
        self.ready.clear();
        Some(wire::retry(COME_AGAIN))
    }

    fn tell(&mut self, happened: &Arc<Happened>) {
        let event = &happened.event;
        if event.seq <= self.after || self.ended {
            return;
        }
        self.after = event.seq;
        let job = self.job();
        let told = JobEvent::of(event, job);
        if told.ends() {
            self.following.forget_progress(event.job_id);
            self.ended = job.is_some();
        }
        self.ready.push_back(wire::frame(Some(event.seq), &told));
    }

    fn tell_progress(&mut self, progress: &[Arc<Progress>]) {
        let told = progress.iter().filter_map(|progress| JobEvent::progress(progress));
        self.ready.extend(told.map(|told| wire::frame(None, &told)));
        if !self.ready.is_empty() {
            self.progress_at = Instant::now() + self.pace.progress;
        }
    }

    fn job(&self) -> Option<Uuid> {
        match self.interest {
            Interest::Job { id, .. } => Some(id),
            Interest::Jobs(_) => None,
        }
    }

    /// Reads from the table what the feed did not tell.
    async fn read_on(&mut self) {
        match self.feed.read(&self.interest, self.after).await {
            Ok((events, more)) => {
                self.behind = more.is_some();
                for happened in &events {
                    self.tell(happened);
                }
                self.after = self.after.max(more.unwrap_or(0));
            }
            Err(error) => {
                tracing::debug!(%error, "the events of a stream could not be read; trying again");
                self.pause().await;
            }
        }
    }

    /// The feed let this follower go because it did not keep up.
    async fn come_again(&mut self) {
        match self.feed.follow(&self.interest).await {
            Ok(following) => (self.following, self.behind) = (following, true),
            Err(error) => {
                tracing::debug!(%error, "a stream could not be followed on; trying again");
                self.pause().await;
            }
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = tokio::time::sleep(READ_AGAIN) => {}
            () = self.draining.cancelled() => {}
        }
    }
}

/// Whether events after `last` are not kept any more, or it is a number that was never given.
fn is_gap(last: i64, first: i64, newest: i64) -> bool {
    last > newest || last.saturating_add(1) < first
}

#[cfg(test)]
mod tests {
    use super::is_gap;

    #[test]
    fn a_gap_is_what_was_forgotten_or_never_was() {
        for (last, first, newest, gap) in [
            (0, 0, 0, false),
            (1, 0, 0, true),
            (0, 1, 7, false),
            (0, 2, 7, true),
            (3, 4, 7, false),
            (3, 5, 7, true),
            (7, 7, 7, false),
            (8, 7, 7, true),
            (i64::MAX, 1, 7, true),
        ] {
            assert_eq!(is_gap(last, first, newest), gap, "{last} of {first} to {newest}");
        }
    }
}
