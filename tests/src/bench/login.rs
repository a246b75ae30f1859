//! A flood of logins beside a scan that lasts as long: what is answered, how fast `/health` is, and whether the scan was held up.

use super::{say, scan::Kind};
use crate::{
    app::job,
    faults::{
        cloud::Order,
        double::Plan,
        flood::{Told, flood},
        trial::Trial,
    },
};
use anyhow::Result;
use std::time::Duration;

const PAGE: Duration = Duration::from_millis(200);

/// Prints a line per database.
///
/// # Errors
/// When a database cannot be opened.
pub async fn run(rate: u32, span: Duration, databases: &[Kind]) -> Result<()> {
    say("| database | logins/s | seconds | answers | `/health` p50 | p99 | worst | rescues of the job |");
    say("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for kind in databases {
        let database = kind.open().await?;
        let trial = Trial::on("login flood", &database.database).await;
        let pages = u32::try_from(span.as_millis() / PAGE.as_millis())?;
        let order = Some(Order::Take(u64::try_from(PAGE.as_millis())?));
        let account = trial.account("busy", Plan { regions: 1, pages, order, ..Plan::default() }).await;
        let facade = trial.facade().await;
        let scan = trial.scan(account).await;
        let _worker = trial.worker_with("only", &[("KEYWRIGHT_LEASE_SECONDS", "8")]).await;
        trial.double.asked(2).await;
        let told = flood(facade.url(), rate * u32::try_from(span.as_secs())?, Duration::from_secs(1) / rate).await;
        let rescues = job(&trial.db, scan).await.rescues;
        print(*kind, rate, span, told, rescues);
    }
    Ok(())
}

fn print(kind: Kind, rate: u32, span: Duration, mut told: Told, rescues: i32) {
    told.health.sort_unstable();
    let at = |share: f64| {
        let place = ((told.health.len().saturating_sub(1)) as f64 * share).round() as usize;
        told.health.get(place).map_or_else(|| "–".to_owned(), |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0))
    };
    let answers: Vec<String> = told.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0));
    let (name, seconds, answers) = (kind.name(), span.as_secs(), answers.join(", "));
    say(&format!("| {name} | {rate} | {seconds} | {answers} | {p50} | {p99} | {worst} | {rescues} |"));
}
