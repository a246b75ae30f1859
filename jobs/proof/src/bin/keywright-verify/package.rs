//! `keywright-verify package`.

use crate::given;
use clap::Args;
use keywright_proof::{
    package::{Inputs, Report, verify},
    verdict::Fault,
};
use std::{fs::File, path::PathBuf};

#[derive(Args)]
pub struct Package {
    /// The package: what GET /api/evidence/{id}/download gave.
    file: PathBuf,
    /// A public key of the instance, NAME+ID+KEY, or a file with keys or with what GET /api/evidence/keys told. It comes from
    /// whoever vouches for the instance, not with the file.
    #[arg(long, required = true, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// A checkpoint of the audit log that was kept since an earlier time: the events in the package must go on from it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// What GET /api/audit/proof?from=&to= told, for a checkpoint whose events are not all in the package.
    #[arg(long, value_name = "FILE")]
    proof: Vec<PathBuf>,
}

impl Package {
    /// Checks the file.
    pub fn check(&self) -> Result<Report, Fault> {
        let inputs = Inputs {
            keys: given::keys(&self.key)?,
            checkpoints: self.checkpoint.iter().map(|path| given::checkpoint(path)).collect::<Result<_, _>>()?,
            proofs: self.proof.iter().map(|path| given::proof(path)).collect::<Result<_, _>>()?,
        };
        let open = || {
            File::open(&self.file)
                .map_err(|error| Fault::usage(format!("{} cannot be read: {error}", self.file.display())))
        };
        verify(open, &inputs)
    }
}
