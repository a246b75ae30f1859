//! `graphile_worker` with the settings of its own throughput benchmark, on the database that `DATABASE_URL` names.
//!
//! `fill N` adds jobs; `work` runs them until it is killed; `enqueue PRODUCERS SECONDS` adds one at a time and prints how many a
//! second.

use anyhow::{Context, Result, bail};
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};

#[derive(Clone, Serialize, Deserialize)]
struct Noop {}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        Ok::<(), String>(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL names the database")?;
    let pool = PgPoolOptions::new().max_connections(20).connect(&url).await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["fill", count] => fill(&pool, count.parse()?).await,
        ["work"] => work(pool).await,
        ["enqueue", producers, seconds] => enqueue(&pool, producers.parse()?, seconds.parse()?).await,
        _ => bail!("fill N | work | enqueue PRODUCERS SECONDS"),
    }
}

async fn utils(pool: &PgPool) -> Result<WorkerUtils> {
    let utils = WorkerUtils::new(pool.clone(), "graphile_worker");
    utils.migrate().await?;
    Ok(utils)
}

async fn fill(pool: &PgPool, count: usize) -> Result<()> {
    let utils = utils(pool).await?;
    let job = || RawJobSpec {
        identifier: Noop::IDENTIFIER.to_owned(),
        payload: serde_json::json!({}),
        spec: JobSpec::default(),
    };
    let jobs: Vec<RawJobSpec> = (0..count).map(|_| job()).collect();
    for some in jobs.chunks(1000) {
        utils.add_raw_jobs(some).await?;
    }
    Ok(())
}

async fn work(pool: PgPool) -> Result<()> {
    utils(&pool).await?;
    let worker = WorkerOptions::default()
        .concurrency(500)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(Duration::from_millis(5))
        .local_queue(LocalQueueConfig::default().with_size(5000))
        .pg_pool(pool)
        .define_job::<Noop>()
        .init()
        .await?;
    println!("ready");
    Ok(worker.run().await?)
}

async fn enqueue(pool: &PgPool, producers: usize, seconds: f64) -> Result<()> {
    utils(pool).await?;
    let (began, span) = (Instant::now(), Duration::from_secs_f64(seconds));
    let producing: Vec<_> = (0..producers)
        .map(|_| {
            let utils = WorkerUtils::new(pool.clone(), "graphile_worker");
            tokio::spawn(async move {
                let mut done = 0_u32;
                while began.elapsed() < span {
                    utils.add_job(Noop {}, JobSpec::default()).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut total = 0;
    for producer in producing {
        total += producer.await??;
    }
    println!("{}", f64::from(total) / began.elapsed().as_secs_f64());
    Ok(())
}
