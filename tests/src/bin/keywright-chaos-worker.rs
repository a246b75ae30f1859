//! `keywright-test-worker`, which breaks the promise that `KWTEST_CHAOS` names: it proves that the fault tests would notice.

use keywright_tests::faults::cloud::DoubleCloud;
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    keywright_worker::process::main(|_| Ok(Arc::new(DoubleCloud::from_environment()?)))
}
