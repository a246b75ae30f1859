//! How many jobs a second can be enqueued durably.

use super::{
    Noop, Options, Series, enqueue_one,
    floor::{self, Insert},
    new_job, peer, table,
};
use crate::{bench::say, database::TestDatabase};
use anyhow::{Context, Result, ensure};
use keywright_jobs::{queue, setup::database::Database};
use std::time::{Duration, Instant};

/// Jobs of one call.
const BATCH: usize = 1000;

/// On PostgreSQL, beside bare SQL and the peer.
pub async fn postgres(options: &Options) -> Result<()> {
    let test = super::postgres().await?;
    let url = test.url().to_owned();
    let mut load = Vec::new();
    let mut rows = Vec::new();
    for producers in [1, 16] {
        let [mut ours, mut floor, mut bare, mut theirs] = <[Series; 4]>::default();
        // the API's default, unless there are more producers
        let db = Database::open(&url, u32::try_from(producers)?.max(10)).await?;
        for _ in 0..options.repetitions {
            floor.push(floor::insert(&url, producers, options.span, Insert::Rows).await?);
            ours.push(rate(&db, producers, options.span).await?);
            bare.push(floor::insert(&url, producers, options.span, Insert::Bare).await?);
            theirs.push(graphile(&test.database, producers, options.span)?);
            load.push(table::load());
        }
        let name = format!("{producers} producer{}", if producers == 1 { "" } else { "s" });
        let row = |what: &str, series: &Series| {
            vec![name.clone(), what.to_owned(), series.cell(), series.over(&floor).cell(), series.over(&bare).cell()]
        };
        rows.extend([row("Keywright", &ours), row("graphile_worker", &theirs), row("the same rows, bare", &floor)]);
        rows.push(row("one bare row", &bare));
    }
    let [mut ours, mut bare] = <[Series; 2]>::default();
    for _ in 0..options.repetitions {
        bare.push(floor::insert(&url, 1, options.span, Insert::Batch(BATCH)).await?);
        ours.push(batches(&test.database, options.span).await?);
    }
    let none = String::new;
    rows.push(vec!["1,000 per call".to_owned(), "Keywright".to_owned(), ours.cell(), ours.over(&bare).cell(), none()]);
    rows.push(vec!["1,000 per call".to_owned(), "bare, one statement".to_owned(), bare.cell(), none(), none()]);
    let columns = ["producers", "what", "jobs/s", "÷ the same rows, bare", "÷ one bare row"];
    table::print("Enqueue, PostgreSQL (job and audit event)", &columns, &rows, &load);
    Ok(())
}

/// On SQLite, one after the other and many at once.
pub async fn sqlite(options: &Options) -> Result<()> {
    let test = TestDatabase::sqlite().await;
    let [mut one, mut many] = <[Series; 2]>::default();
    let mut load = Vec::new();
    for _ in 0..options.repetitions {
        one.push(rate(&test.database, 1, options.span).await?);
        many.push(rate(&test.database, 64, options.span).await?);
        load.push(table::load());
    }
    let rows = [
        vec!["one by one".to_owned(), one.cell(), one.over(&one).cell()],
        vec!["64 in flight".to_owned(), many.cell(), many.over(&one).cell()],
    ];
    table::print(
        "Enqueue, SQLite (job and audit event, synchronous=FULL)",
        &["", "jobs/s", "÷ one by one"],
        &rows,
        &load,
    );
    Ok(())
}

/// What so many producers of one process reach.
async fn rate(db: &Database, producers: usize, span: Duration) -> Result<f64> {
    let began = Instant::now();
    let producing: Vec<_> = (0..producers)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut done = 0_u32;
                while began.elapsed() < span {
                    enqueue_one(&db, &Noop::default()).await?;
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
    Ok(f64::from(total) / began.elapsed().as_secs_f64())
}

async fn batches(db: &Database, span: Duration) -> Result<f64> {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < span {
        let jobs = (0..BATCH).map(|_| new_job(&Noop::default())).collect::<Result<Vec<_>>>()?;
        let write = db.begin().await?;
        queue::enqueue_all(&*write, &jobs).await?;
        write.commit().await?;
        done += BATCH;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn graphile(db: &Database, producers: usize, span: Duration) -> Result<f64> {
    let mut command = peer("keywright-peer-graphile", db)?;
    let output = command.args(["enqueue", &producers.to_string(), &span.as_secs_f64().to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the peer failed: {}", String::from_utf8_lossy(&output.stderr));
    text.trim().parse().with_context(|| {
        say(&text);
        "the peer printed no figure"
    })
}
