//! A job that does nothing, for measuring the engine alone. Only a build with the feature `bench` offers it.

use crate::{
    context::Context,
    job::{Done, Job, JobError},
};
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, time::Duration};
use tokio::net::UdpSocket;

/// Does nothing, once it has said that it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noop {
    /// A UDP port of this machine that is sent the job's id as soon as the job runs.
    pub tell: Option<u16>,
    /// How long it runs, in milliseconds.
    pub hold_ms: u64,
}

impl Job for Noop {
    const KIND: &'static str = "bench.noop";
    const TIMEOUT: Duration = Duration::from_secs(3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        if let Some(port) = self.tell {
            let told = async {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                socket.send_to(context.job.id.as_bytes(), (Ipv4Addr::LOCALHOST, port)).await
            };
            told.await.map_err(|error| JobError::fail("not_told", error))?;
        }
        if self.hold_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.hold_ms)).await;
        }
        Ok(Done::Succeeded)
    }
}
