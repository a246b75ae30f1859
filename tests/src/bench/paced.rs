//! Scans at the pace that clouds publish: how near to the computed floor, and what a second worker adds.

use super::{
    delay::DelayProxy,
    median, say,
    scan::{Kind, Options, seconds_between},
    table::load,
};
use crate::{
    instance::{Instance, aws_environment},
    rig::{ACCOUNT, AwsSeed, Rig},
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

/// Of the account in which a second worker is tried.
const REGIONS: [&str; 20] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "ap-south-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "sa-east-1",
];
/// Of each worker, when several are compared.
const CONCURRENCY: &str = "2";

/// One scan that found everything, in seconds.
struct Run {
    taken: f64,
    /// As the scan tells.
    floor: f64,
}

/// A scan of one region, in proportion to its floor.
///
/// # Errors
/// When something cannot be started, or a scan did not find every secret.
pub async fn floor(options: &Options) -> Result<()> {
    let (_roto, proxy) = account(options, &REGIONS[..1]).await?;
    say("database  round  scan    floor   taken  taken/floor  load");
    for database in &options.databases {
        let mut ratios = Vec::new();
        for round in 1..=options.rounds {
            let place = database.open().await?;
            let instance = Instance::start(&place, &aws_environment(proxy.url())).await;
            let subscription = subscribe(&instance, &REGIONS[..1]).await;
            for name in ["first", "second"] {
                let run = scan(&instance, &subscription, options).await?;
                let ratio = run.taken / run.floor;
                say(&format!(
                    "{:<9} {round:>5}  {name:<6} {:>6.2}  {:>6.2}  {ratio:>11.3}  {:>4.1}",
                    database.name(),
                    run.floor,
                    run.taken,
                    load()
                ));
                ratios.push(ratio);
            }
        }
        say(&format!("{:<9} median {:.3}", database.name(), median(&ratios).unwrap_or(f64::NAN)));
    }
    Ok(())
}

/// A scan of equal scopes in twenty regions, by one worker and by two, in turns.
///
/// # Errors
/// When something cannot be started, or a scan did not find every secret.
pub async fn workers(options: &Options) -> Result<()> {
    let (_roto, proxy) = account(options, &REGIONS).await?;
    say("database  round  one worker  two workers  gain   load");
    for database in &options.databases {
        let mut gains = Vec::new();
        for round in 1..=options.rounds {
            let (one, two) =
                (twenty(*database, options, &proxy, 1).await?, twenty(*database, options, &proxy, 2).await?);
            say(&format!(
                "{:<9} {round:>5}  {one:>10.2}  {two:>11.2}  {:>4.2}  {:>5.1}",
                database.name(),
                one / two,
                load()
            ));
            gains.push(one / two);
        }
        say(&format!("{:<9} median gain {:.2}", database.name(), median(&gains).unwrap_or(f64::NAN)));
    }
    Ok(())
}

async fn twenty(database: Kind, options: &Options, proxy: &DelayProxy, workers: usize) -> Result<f64> {
    let place = database.open().await?;
    let environment = [&aws_environment(proxy.url())[..], &[("KEYWRIGHT_WORKER_CONCURRENCY", CONCURRENCY)]].concat();
    let instance = Instance::start(&place, &environment).await;
    let mut more = Vec::new();
    for _ in 1..workers {
        more.push(Instance::another_worker(&place, &environment).await);
    }
    let subscription = subscribe(&instance, &REGIONS).await;
    Ok(scan(&instance, &subscription, options).await?.taken)
}

/// The emulator with the secrets dealt out over these regions, behind the proxy.
async fn account(options: &Options, regions: &'static [&'static str]) -> Result<(crate::rig::Server, DelayProxy)> {
    let rig = Rig::find().context("the emulators are needed")?;
    let roto = rig.roto().await?;
    rig.seed_aws(roto.url(), &AwsSeed { secrets: options.secrets, regions, ..AwsSeed::default() }).await?;
    let upstream = roto.url().trim_start_matches("http://").parse()?;
    let proxy = DelayProxy::start(upstream, options.latency).await?;
    say(&format!(
        "{} secrets in {} regions, {} ms added per call; seconds",
        options.secrets,
        regions.len(),
        options.latency.as_millis()
    ));
    Ok((roto, proxy))
}

async fn subscribe(instance: &Instance, regions: &[&str]) -> String {
    instance.subscribe(&json!({"provider": "aws", "externalId": ACCOUNT, "name": "bench", "regions": regions})).await
}

async fn scan(instance: &Instance, subscription: &str, options: &Options) -> Result<Run> {
    let job = instance.scan(subscription).await;
    ensure!(
        job["state"] == "succeeded" && job["counts"]["found"] == options.secrets,
        "not every secret is there: {job}"
    );
    let scan = instance.get(&format!("/api/assets/discovery/scans/{}", job["id"].as_str().unwrap_or_default())).await;
    let floor = scan["providerFloorSeconds"].as_f64().with_context(|| format!("the scan has no floor: {scan}"))?;
    Ok(Run { taken: seconds_between(&job["startedAt"], &job["completedAt"])?, floor })
}
