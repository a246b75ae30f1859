//! Proofs that an outsider can check offline, without trusting whoever runs the instance.
//!
//! Pure: no async, database, clock, environment or randomness; what is read comes in as bytes or as a reader.
//!
//! * [`canonical`]: one spelling for every JSON value (RFC 8785).
//! * [`tree`]: the Merkle tree of RFC 9162, its proofs, and the tiles in which its hashes are kept.
//! * [`note`] and [`checkpoint`]: signed notes and checkpoints as C2SP describes them.
//! * [`keys`]: the public keys of an instance, old ones vouching for new ones.
//! * [`event`]: what of an audit event is hashed.
//! * [`log`]: checking a run of events against checkpoints, wherever they come from.
//! * [`export`]: the export of the audit log, its writing and its verification.
//! * [`package`]: evidence packages and their verification.
//! * [`verdict`]: what a verification comes to.

pub mod canonical;
pub mod checkpoint;
pub mod event;
pub mod export;
pub mod hash;
pub mod keys;
pub mod log;
pub mod note;
pub mod package;
pub mod tree;
pub mod verdict;

pub use hash::Hash;
