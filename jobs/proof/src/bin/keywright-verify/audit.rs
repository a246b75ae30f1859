//! `keywright-verify audit`.

use crate::given;
use clap::Args;
use keywright_proof::{
    export::{Inputs, Report, verify},
    verdict::Fault,
};
use std::{io::BufReader, path::PathBuf};

/// Read at once.
const BUFFER: usize = 1 << 20;

#[derive(Args)]
pub struct Audit {
    /// The export: what GET /api/audit/export?format=ndjson gave; `-` for what comes in.
    file: PathBuf,
    /// A public key of the instance, NAME+ID+KEY, or a file with keys or with what GET /api/evidence/keys told. It comes from
    /// whoever vouches for the instance, not with the file.
    #[arg(long, required = true, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// A checkpoint that was kept since an earlier time: the log must go on from it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// What GET /api/audit/proof?from=&to= told, for a checkpoint whose events are not all in the file.
    #[arg(long, value_name = "FILE")]
    proof: Vec<PathBuf>,
    /// A part of the log is what was asked for.
    #[arg(long)]
    part: bool,
}

impl Audit {
    /// Checks the file.
    pub fn check(&self) -> Result<Report, Fault> {
        let inputs = Inputs {
            keys: given::keys(&self.key)?,
            checkpoints: self.checkpoint.iter().map(|path| given::checkpoint(path)).collect::<Result<_, _>>()?,
            proofs: self.proof.iter().map(|path| given::proof(path)).collect::<Result<_, _>>()?,
            part: self.part,
        };
        verify(BufReader::with_capacity(BUFFER, given::open(&self.file)?), &inputs)
    }
}
