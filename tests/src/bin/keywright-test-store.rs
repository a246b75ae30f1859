//! Puts a file into an evidence store and reads it back, as a worker and the API do: `PLACE KEY FILE [GCP-ENDPOINT]`. Credentials and
//! endpoints come from the environment, as the official SDKs read them.

use aws_lc_rs::digest::{SHA256, digest};
use futures::StreamExt;
use keywright_jobs::evidence::objects::{Content, Objects};
use std::{env, path::PathBuf, process::ExitCode};

#[allow(clippy::print_stdout, reason = "tests read it")]
#[tokio::main]
async fn main() -> ExitCode {
    match put().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn put() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [place, key, file, rest @ ..] = arguments.as_slice() else { anyhow::bail!("PLACE KEY FILE [GCP-ENDPOINT]") };
    let endpoint = rest.first().map(|url| url.parse()).transpose()?;
    let objects = Objects::open(&place.parse()?, &PathBuf::from("unused"), endpoint).await?;
    let file = PathBuf::from(file);
    let bytes = std::fs::read(&file)?;
    let sha256 = <[u8; 32]>::try_from(digest(&SHA256, &bytes).as_ref())?;
    let size = bytes.len() as u64;
    objects.create(key, &file, &Content { size, sha256 }).await?;
    let mut read = Vec::new();
    let mut chunks = objects.read(key, 1..size).await?;
    while let Some(chunk) = chunks.next().await {
        read.extend_from_slice(&chunk?);
    }
    anyhow::ensure!(bytes.get(1..) == Some(read.as_slice()), "other bytes were read than were written");
    Ok(())
}
