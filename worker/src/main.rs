//! `keywright-worker`: claims jobs and runs them against the clouds. As many as you like may run on one database.

use keywright_worker::{process, providers::Clouds};
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    process::main(|config| Ok(Arc::new(Clouds::new(config)?)))
}
