//! The heart of Keywright: what the system does, independent of HTTP and of any cloud.
//!
//! * [`approvals`]: what somebody else must approve.
//! * [`audit`]: the event that every business transaction writes.
//! * [`egress`]: where addresses that users enter may lead.
//! * [`evidence`]: what evidence packages are built with and kept in.
//! * [`domain`]: pure rules; no async, no database, no clock, no randomness.
//! * [`provider`]: the seam behind which every cloud lives.
//! * [`queue`]: the job engine over our own table.
//! * [`kinds`]: one file per job kind, and the list of them.
//! * [`retention`]: forgetting what has had its time.
//! * [`rotation`]: rotations under way: their record, and who drives it.
//! * [`licence`]: what the licence has, and how much of it.
//! * [`metrics`]: what a process counts and measures, for Prometheus.
//! * [`pacing`]: how fast clouds are called, by all workers together.
//! * [`schedules`]: what is asked for again and again, by the clock.
//! * [`settings`]: what an administrator has set.
//! * [`setup`]: configuration, database, sealing, telemetry: what both processes share.

pub mod approvals;
pub mod audit;
pub mod context;
pub mod domain;
pub mod egress;
pub mod evidence;
pub mod job;
pub mod kinds;
pub mod licence;
pub mod metrics;
pub mod pacing;
pub mod provider;
pub mod queue;
pub mod retention;
pub mod rotation;
pub mod schedules;
pub mod settings;
pub mod setup;
