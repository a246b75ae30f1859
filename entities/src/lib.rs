//! Rows of the Keywright database and the queries on them, one file per table.

pub mod api_token;
pub mod asset;
pub mod asset_version;
pub mod audit_outbox;
pub mod clock;
pub mod idempotency;
pub mod job;
pub mod job_event;
pub mod job_subscription;
pub mod login_failures;
pub mod refresh_token;
pub mod scan;
pub mod scan_warning;
pub mod schedule;
pub mod schedule_run;
pub mod scope;
pub mod sealing_canary;
pub mod session;
pub mod signing_key;
pub mod subscription;
pub mod subscription_credential;
pub mod types;
pub mod user_account;
pub mod vault;
pub mod worker;
pub mod wrapped_key;
