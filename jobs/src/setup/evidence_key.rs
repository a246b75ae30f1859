//! The key that signs evidence packages.

use super::{database::Database, sealing::Sealing};
use crate::job::JobError;
use aws_lc_rs::signature::Ed25519KeyPair;
use keywright_proof::note::Signer;

/// # Errors
/// When the key cannot be had.
pub async fn signer(_: &Database, sealing: &Sealing) -> Result<Signer, JobError> {
    let failed = |_| JobError::retry("signing_key_unavailable", "the signing key could not be opened");
    let seed =
        sealing.derive("evidence signing key").map_err(|error| JobError::retry("signing_key_unavailable", error))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(failed)?;
    let document = pair.to_pkcs8v1().map_err(|_| JobError::retry("signing_key_unavailable", "no key"))?;
    Signer::from_pkcs8("keywright", document.as_ref())
        .map_err(|error| JobError::retry("signing_key_unavailable", error))
}
