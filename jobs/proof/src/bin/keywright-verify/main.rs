//! Checks what Keywright exported: offline, with nothing but the file and a public key.

use clap::{Parser, Subcommand};
use keywright_proof::verdict::{Fault, Kind};
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

mod audit;
mod given;
mod package;

/// Checks what Keywright exported, offline: with the file, a public key, and, if there is one, an older checkpoint.
///
/// Ends with 0 when all is valid, 1 when something was tampered with, 2 when something that would prove it is missing, 3 when it was
/// called in a wrong way. What is wrong first is told with its row.
#[derive(Parser)]
#[command(name = "keywright-verify", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Checks an export of the audit log (NDJSON).
    Audit(audit::Audit),
    /// Checks an evidence package (ZIP).
    Package(package::Package),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            if error.print().is_err() || wrong {
                return ExitCode::from(Kind::Usage as u8);
            }
            return ExitCode::SUCCESS;
        }
    };
    let checked = match arguments.what {
        What::Audit(audit) => audit.check().map(|report| report.to_string()),
        What::Package(package) => package.check().map(|report| report.to_string()),
    };
    match checked {
        Ok(report) => told(&format!("VALID\n{report}")),
        Err(fault) => {
            told(&format!("{fault}\n"));
            ExitCode::from(fault.kind as u8)
        }
    }
}

/// A verdict that could not be told is none.
fn told(what: &impl Display) -> ExitCode {
    match write!(io::stdout().lock(), "{what}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Fault::usage("").kind as u8),
    }
}
