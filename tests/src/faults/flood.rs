//! Logins without end, right and wrong ones, and what became of them.

use reqwest::{Client, StatusCode};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const PASSWORD: &str = "correct-horse-battery";
/// Longer than any answer takes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// How often each status came, and how long it took to hear from `/health` meanwhile.
#[derive(Debug, Default)]
pub struct Told {
    pub statuses: BTreeMap<u16, u32>,
    pub health: Vec<Duration>,
}

/// Sends so many logins, `every` so often whatever becomes of those before. Every other one is of a name that nobody has.
pub async fn flood(url: &str, logins: u32, every: Duration) -> Told {
    let client = Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().expect("a client");
    let (mut sending, mut told) = (JoinSet::new(), Told::default());
    let begun = tokio::time::Instant::now();
    for number in 0..logins {
        tokio::time::sleep_until(begun + every * number).await;
        sending.spawn(log_in(client.clone(), url.to_owned(), number));
        if number % 20 == 0 {
            told.health.push(health(&client, url).await);
        }
    }
    for status in sending.join_all().await {
        *told.statuses.entry(status).or_default() += 1;
    }
    told
}

async fn log_in(client: Client, url: String, number: u32) -> u16 {
    let name = if number.is_multiple_of(2) { "admin".to_owned() } else { format!("nobody-{number}") };
    let body = json!({"username": name, "password": PASSWORD});
    let answer = client.post(format!("{url}/api/auth/login")).json(&body).send().await.expect("an answer");
    let after = answer.headers().get("retry-after").is_some_and(|value| value.to_str().is_ok_and(|text| text != "0"));
    assert_eq!(answer.status() == StatusCode::TOO_MANY_REQUESTS, after, "a 429 tells when to come again");
    answer.status().as_u16()
}

async fn health(client: &Client, url: &str) -> Duration {
    let begun = Instant::now();
    let answer = client.get(format!("{url}/health")).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    begun.elapsed()
}
