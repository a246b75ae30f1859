//! The `POST` of a job over HTTP, beside axum and sqlx writing the same rows without any of the rest.

use super::{Options, Series, count, memory, peer, postgres, quantile, table};
use crate::{instance::Instance, process::Signal, rig::ACCOUNT};
use anyhow::{Context, Result, ensure};
use keywright_jobs::setup::{database::Database, ids};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONNECTIONS: usize = 32;
/// As many as the API keeps by default.
const POOL: &str = "10";

/// Requests a minute and an hour, which nobody reaches: they are counted all the same.
const LIMIT: &str = "1000000000";

/// Measures, and prints a table.
pub async fn run(options: &Options) -> Result<()> {
    let test = postgres().await?;
    let db = &test.database;
    let limits = [("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", LIMIT), ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", LIMIT)];
    let mut api = Instance::start_with(&test, &limits, &[]).await;
    // what it would do is measured elsewhere
    api.worker.signal(Signal::Term);
    api.worker.ended(Duration::from_secs(30)).await;
    let subscription = api.subscribe(&json!({"provider": "aws", "externalId": ACCOUNT, "name": "bench"})).await;
    let body = json!({"subscriptions": [subscription], "onConflict": "queue"}).to_string();
    let floor = Floor::start(db)?;
    let ours = Target {
        address: api.url().trim_start_matches("http://").to_owned(),
        path: "/api/assets/discovery/scan",
        token: api.token().to_owned(),
    };
    let at = |path| Target { address: floor.address.clone(), path, token: "none".to_owned() };
    let targets =
        [("Keywright", ours), ("axum + sqlx, the same rows", at("/rows")), ("axum + sqlx, one bare row", at("/bare"))];
    let mut figures = [(); 3].map(|()| <[Series; 3]>::default());
    let (mut resident, mut load) = (Series::default(), Vec::new());
    for _ in 0..options.repetitions {
        for ((_, target), [rate, p50, p99]) in targets.iter().zip(&mut figures) {
            let before = count(db, "SELECT count(*) FROM job").await?;
            let mut answers = requests(target, &body, options.span).await?;
            let after = count(db, "SELECT count(*) FROM job").await?;
            if target.path != "/bare" {
                ensure!(after - before == i64::try_from(answers.len())?, "not every answer has its job");
            }
            rate.push(answers.len() as f64 / options.span.as_secs_f64());
            p50.push(quantile(&mut answers, 0.5));
            p99.push(quantile(&mut answers, 0.99));
        }
        resident.push(memory(api.api.id(), "VmRSS"));
        load.push(table::load());
    }
    let [_, [floor_rate, _, floor_p99], [bare_rate, ..]] = figures.clone();
    let rows: Vec<_> = targets
        .iter()
        .zip(&figures)
        .map(|((name, _), [rate, p50, p99])| {
            let ratios = [rate.over(&floor_rate), rate.over(&bare_rate), p99.over(&floor_p99)];
            let cells = [rate, p50, p99].into_iter().chain(&ratios).map(Series::cell);
            std::iter::once((*name).to_owned()).chain(cells).collect()
        })
        .collect();
    let columns =
        ["what", "requests/s", "p50 ms", "p99 ms", "÷ the same rows", "÷ one bare row", "p99 ÷ that of the same rows"];
    table::print(&format!("POST of a job, {CONNECTIONS} connections, PostgreSQL"), &columns, &rows, &load);
    let rows = [vec!["the API after that load".to_owned(), resident.cell()]];
    table::print("Memory of the API, MiB", &["", "resident"], &rows, &load);
    Ok(())
}

struct Target {
    address: String,
    path: &'static str,
    token: String,
}

/// How long each answer took in milliseconds, over so many connections that each send one request after the other.
async fn requests(target: &Target, body: &str, span: Duration) -> Result<Vec<f64>> {
    let began = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, path, token, body) =
                (target.address.clone(), target.path, target.token.clone(), body.to_owned());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let (mut took, mut read) = (Vec::new(), Vec::new());
                while began.elapsed() < span {
                    let request = format!(
                        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
                         idempotency-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                        ids::new(),
                        body.len()
                    );
                    let sent = Instant::now();
                    stream.write_all(request.as_bytes()).await?;
                    answer(&mut stream, &mut read).await?;
                    took.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await??);
    }
    Ok(all)
}

/// Reads one answer, which must be a 202 that tells its length.
async fn answer(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<()> {
    read.clear();
    loop {
        ensure!(stream.read_buf(read).await? > 0, "the connection was closed");
        let Some(head) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 202"), "not accepted: {}", String::from_utf8_lossy(read));
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).context("no length")?;
        if read.len() >= head + 4 + length.trim().parse::<usize>()? {
            return Ok(());
        }
    }
}

/// The floor's server; ends with its value.
struct Floor {
    child: Child,
    address: String,
}

impl Floor {
    fn start(db: &Database) -> Result<Self> {
        let mut command = peer("keywright-floor-http", db)?;
        let mut child = command.env("CONNECTIONS", POOL).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // gone already, or not: both are fine
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
