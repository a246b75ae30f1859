//! `keywright-worker` over the double of the fault tests, which may order it to do harm.

use keywright_tests::faults::cloud::DoubleCloud;
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    keywright_worker::process::main(|_| Ok(Arc::new(DoubleCloud::from_environment()?)))
}
