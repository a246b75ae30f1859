//! Lists the secrets of `AWS_REGION` with the bare SDK and prints how many there are and how many seconds it took.
//!
//! What a scan is compared with (docs/PERFORMANCE.md): the SDK's own paginator with its default client, nothing kept. It
//! lives in this folder because a cloud's SDK is used nowhere else. It is an example, so no release carries it.

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use std::time::Instant;

/// As many as the inventory asks for, which is the most that ListSecrets gives at once.
const PAGE_SIZE: i32 = 100;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "its caller reads the figures there")]
async fn main() -> anyhow::Result<()> {
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await);
    let began = Instant::now();
    let mut pages = client.list_secrets().into_paginator().page_size(PAGE_SIZE).send();
    let mut found = 0;
    while let Some(page) = pages.next().await {
        found += page?.secret_list().len();
    }
    println!("{found} {:.6}", began.elapsed().as_secs_f64());
    Ok(())
}
