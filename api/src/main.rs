//! The API server's command line.

use std::io::Write as _;

use clap::Parser;
use keywright_api::openapi;
use keywright_api::routes::Api;

/// The HTTP facade of Keywright.
#[derive(Debug, Parser)]
#[command(name = "keywright-api", version)]
struct Arguments {
    /// Write the OpenAPI document to standard output and exit.
    #[arg(long)]
    print_openapi: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.print_openapi {
        let document = openapi::document::<Api>(openapi::Options { rate_limits: false });
        writeln!(std::io::stdout(), "{document:#}")?;
    }
    Ok(())
}
