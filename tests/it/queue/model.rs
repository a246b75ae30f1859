//! Random sequences of what workers and people do to a few jobs, against a model of what must come of it.

use super::*;
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::{Lease, Renewer, control};
use keywright_tests::database::TestDatabase;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use std::{sync::Arc, time::Instant};
use tokio::{runtime::Runtime, sync::Notify};
use tokio_util::sync::CancellationToken;

/// Cases on each database.
const CASES: u32 = 40;

#[derive(Clone, Debug)]
enum Step {
    /// A worker with this many free slots looks for jobs.
    Claim(usize),
    /// Somebody who once claimed the job tells what came of it: `by` counts back from the latest.
    Finish {
        job: usize,
        by: usize,
        end: End,
    },
    Renew {
        job: usize,
        by: usize,
    },
    /// Time passes, and the holder does not renew.
    Lapse(usize),
    Rescue,
    /// The holder is lost, and a worker that looks for jobs takes the job over.
    TakeOver(usize),
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    /// Of the parent, and so of all.
    PauseAll,
    ResumeAll,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success,
    Failure,
    Retry,
    Snooze,
    GiveBack,
}

impl End {
    fn outcome(self) -> Outcome {
        match self {
            Self::Success => success(),
            Self::Failure => failure("broken"),
            Self::Retry => Outcome::Retry { reason: reason("throttled"), after: Duration::ZERO },
            Self::Snooze => Outcome::Snooze { waiting_for: WaitingFor::Snooze, after: Duration::ZERO },
            Self::GiveBack => Outcome::GivenBack,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let end =
        prop_oneof![Just(End::Success), Just(End::Failure), Just(End::Retry), Just(End::Snooze), Just(End::GiveBack)];
    prop_oneof![
        4 => (1..4_usize).prop_map(Step::Claim),
        4 => (0..3_usize, 0..3_usize, end).prop_map(|(job, by, end)| Step::Finish { job, by, end }),
        2 => (0..3_usize, 0..3_usize).prop_map(|(job, by)| Step::Renew { job, by }),
        3 => (0..3_usize).prop_map(Step::Lapse),
        2 => Just(Step::Rescue),
        3 => (0..3_usize).prop_map(Step::TakeOver),
        1 => (0..3_usize).prop_map(Step::Cancel),
        2 => (0..3_usize).prop_map(Step::Pause),
        2 => (0..3_usize).prop_map(Step::Resume),
        1 => Just(Step::PauseAll),
        1 => Just(Step::ResumeAll),
    ]
}

/// What a job must be like.
#[derive(Clone, Debug)]
struct Model {
    id: Uuid,
    state: JobState,
    epoch: i64,
    attempt: i32,
    rescues: i32,
    lapsed: bool,
    paused: bool,
    /// Every claim there ever was, as its worker knows it.
    claims: Vec<job::Model>,
    seen_version: i64,
}

impl Model {
    fn is_held(&self) -> bool {
        matches!(self.state, JobState::Running | JobState::Canceling)
    }

    /// Ready, waiting or at rest. Bound to a worker as they are here, ready ones wait too.
    fn is_unheld(&self) -> bool {
        self.state == JobState::Waiting
    }

    fn is_due(&self) -> bool {
        self.is_unheld() && !self.paused
    }

    fn holds(&self, claim: &job::Model) -> bool {
        self.is_held() && claim.epoch == self.epoch
    }

    fn moves(&mut self, state: JobState, attempts: i32) {
        (self.state, self.lapsed) = (state, false);
        self.paused &= !state.is_done();
        self.epoch += 1;
        self.attempt += attempts;
    }

    fn finish(&mut self, end: End) {
        let canceling = self.state == JobState::Canceling;
        match end {
            End::Success => self.moves(JobState::Succeeded, 0),
            End::Failure => self.moves(JobState::Failed, 0),
            _ if canceling => self.moves(JobState::Canceled, 0),
            End::Retry => self.moves(JobState::Waiting, 0),
            End::Snooze => self.moves(JobState::Waiting, -1),
            End::GiveBack => self.moves(JobState::Waiting, -1),
        }
    }

    fn rescue(&mut self) {
        self.rescues += 1;
        match self.state {
            JobState::Canceling => self.moves(JobState::Canceled, 0),
            _ if self.rescues == 3 => self.moves(JobState::Failed, 0),
            _ => self.moves(JobState::Waiting, -1),
        }
    }

    fn cancel(&mut self) {
        if self.is_unheld() {
            self.moves(JobState::Canceled, 0);
        } else if self.is_held() {
            (self.state, self.paused) = (JobState::Canceling, false);
        }
    }

    fn pause(&mut self) {
        if self.paused || self.state.is_done() || self.state == JobState::Canceling {
            return;
        }
        self.paused = true;
        self.epoch += i64::from(self.is_unheld());
    }

    fn resume(&mut self) {
        if self.paused {
            self.paused = false;
            self.epoch += i64::from(self.is_unheld());
        }
    }
}

struct Case<'a> {
    db: &'a Database,
    worker: Capability,
    parent: Uuid,
    jobs: Vec<Model>,
}

impl Case<'_> {
    /// One parent with up to three children that only this case's worker may claim.
    async fn begin(db: &Database, children: usize) -> Case<'_> {
        let label = ids::new().to_string();
        let worker = Capability { labels: vec![label.clone()], ..worker(&[]) };
        let parent = put(db, probe().on_workers(Some(label.clone()))).await.id;
        let attempt = claim::claim(db, &worker, 1).await.unwrap().remove(0);
        let new = (0..children).map(|_| probe().child_of(parent).on_workers(Some(label.clone()))).collect();
        assert!(finish(db, &held(&attempt), Outcome::FannedOut(new)).await);
        let jobs = job::children(db.reader(), parent).await.unwrap().into_iter();
        let jobs = jobs
            .map(|job| Model {
                id: job.id,
                state: job.state,
                epoch: job.epoch,
                attempt: 0,
                rescues: 0,
                lapsed: false,
                paused: false,
                claims: Vec::new(),
                seen_version: job.version,
            })
            .collect();
        Case { db, worker, parent, jobs }
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let count = self.jobs.len();
        match *step {
            Step::Claim(free) => self.claim(free).await?,
            Step::Finish { job, by, end } => {
                let model = &mut self.jobs[job % count];
                let Some(claim) = model.claims.iter().rev().nth(by) else { return Ok(()) };
                let ours = model.holds(claim);
                prop_assert_eq!(finish(self.db, &held(claim), end.outcome()).await, ours, "{:?} of {:?}", end, model);
                if ours {
                    model.finish(end);
                }
            }
            Step::Renew { job, by } => {
                let model = &mut self.jobs[job % count];
                let Some(claim) = model.claims.iter().rev().nth(by) else { return Ok(()) };
                let lease = Lease::new(claim, Instant::now(), Duration::from_secs(60), CancellationToken::new());
                let renewer = Renewer::new(Duration::from_secs(60), Arc::new(Notify::new()));
                renewer.hold(&lease);
                renewer.renew(self.db).await.unwrap();
                prop_assert_eq!(lease.certain().await.is_ok(), model.holds(claim), "{:?}", model);
                model.lapsed &= !model.holds(&claim.clone());
            }
            Step::Lapse(job) => self.lapse(job % count).await,
            Step::Rescue => self.rescue().await,
            Step::TakeOver(job) => {
                self.lapse(job % count).await;
                self.rescue().await;
                self.claim(count).await?;
            }
            Step::Cancel(job) => {
                let model = &mut self.jobs[job % count];
                let write = self.db.begin().await.unwrap();
                control::cancel(&*write, model.id).await.unwrap();
                write.commit().await.unwrap();
                model.cancel();
            }
            Step::Pause(job) => {
                self.steer(self.jobs[job % count].id, true).await;
                self.jobs[job % count].pause();
            }
            Step::Resume(job) => {
                self.steer(self.jobs[job % count].id, false).await;
                self.jobs[job % count].resume();
            }
            Step::PauseAll => {
                self.steer(self.parent, true).await;
                self.jobs.iter_mut().for_each(Model::pause);
            }
            Step::ResumeAll => {
                self.steer(self.parent, false).await;
                self.jobs.iter_mut().for_each(Model::resume);
            }
        }
        self.check().await
    }

    async fn steer(&self, job: Uuid, rest: bool) {
        let write = self.db.begin().await.unwrap();
        let steered = if rest { control::pause(&*write, job).await } else { control::resume(&*write, job).await };
        steered.unwrap();
        write.commit().await.unwrap();
    }

    async fn lapse(&mut self, job: usize) {
        let model = &mut self.jobs[job];
        lapse(self.db, model.id).await;
        model.lapsed = model.is_held();
    }

    async fn rescue(&mut self) {
        claim::rescue(self.db).await.unwrap();
        self.jobs.iter_mut().filter(|job| job.lapsed).for_each(Model::rescue);
    }

    async fn claim(&mut self, free: usize) -> Result<(), TestCaseError> {
        let last_chance = |job: &&Model| job.rescues == 2;
        let due = self.jobs.iter().filter(|job| job.is_due()).count();
        let last_due = self.jobs.iter().filter(|job| job.is_due()).filter(last_chance).count();
        let last_held = self.jobs.iter().filter(|job| job.is_held()).filter(last_chance).count();
        let may = due - last_due + last_due.min(1_usize.saturating_sub(last_held));
        let taken = claim::claim(self.db, &self.worker, free).await.unwrap();
        if free >= due {
            prop_assert_eq!(taken.len(), may);
        } else {
            // those that must wait may take up the look
            prop_assert!(taken.len() <= may.min(free) && (may == 0 || !taken.is_empty()), "{:?}", self.jobs);
        }
        let last_taken = taken.iter().filter(|job| job.rescues == 2).count();
        prop_assert!(last_held + last_taken <= 1.max(last_held));
        for claim in taken {
            let model = self.jobs.iter_mut().find(|job| job.id == claim.id);
            let model = model.ok_or_else(|| TestCaseError::fail("somebody else's job was claimed"))?;
            prop_assert!(model.is_due(), "{:?}", model);
            model.moves(JobState::Running, 1);
            model.claims.push(claim);
        }
        Ok(())
    }

    /// The rows are as the model says, and the parent is as its children are.
    async fn check(&mut self) -> Result<(), TestCaseError> {
        for model in &mut self.jobs {
            let row = read(self.db, model.id).await;
            prop_assert_eq!(row.state, model.state);
            prop_assert_eq!((row.epoch, row.attempt, row.rescues), (model.epoch, model.attempt, model.rescues));
            prop_assert_eq!(row.lease_until.is_some(), model.is_held());
            prop_assert_eq!(row.due_at.is_some(), model.is_due());
            prop_assert_eq!(row.paused_at.is_some(), model.paused);
            prop_assert_eq!(row.resume_at.is_some(), model.is_unheld() && model.paused);
            prop_assert_eq!(row.waiting_for == Some(WaitingFor::Pause), model.is_unheld() && model.paused);
            prop_assert_eq!(row.completed_at.is_some(), model.state.is_done());
            prop_assert!(row.version >= model.seen_version);
            model.seen_version = row.version;
        }
        let parent = read(self.db, self.parent).await;
        let open = self.jobs.iter().filter(|job| !job.state.is_done()).count();
        prop_assert_eq!(usize::try_from(parent.children_open).ok(), Some(open));
        prop_assert_eq!(parent.state.is_done(), open == 0);
        prop_assert_eq!(ends(self.db, self.parent).await, u64::from(open == 0));
        Ok(())
    }
}

fn run(runtime: &Runtime, db: &Database) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let cases = (1..4_usize, proptest::collection::vec(step(), 1..30));
    let outcome = runner.run(&cases, |(children, steps)| {
        runtime.block_on(async {
            let mut case = Case::begin(db, children).await;
            for step in &steps {
                case.step(step).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

mod sqlite {
    use super::*;

    #[test]
    fn jobs_do_as_the_model_says() {
        let runtime = Runtime::new().unwrap();
        let test = runtime.block_on(TestDatabase::sqlite());
        run(&runtime, &test.database);
    }
}

mod postgres {
    use super::*;

    #[test]
    fn jobs_do_as_the_model_says() {
        let runtime = Runtime::new().unwrap();
        if let Some(test) = runtime.block_on(TestDatabase::postgres()) {
            run(&runtime, &test.database);
        }
    }
}
