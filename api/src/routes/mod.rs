//! One file per resource, and this list of them.
//!
//! A handler authorises, parses, makes one call and maps the outcome; about 25 lines as a habit. Paths are written in full,
//! `operation_id` is camelCase, the first line of the doc comment is the summary, and what the schema can say (ranges,
//! lengths, enumerations) is said in the types: the strict-input layer has enforced it before the handler runs.
//!
//! ```ignore
//! /// Get a job
//! #[oai(path = "/api/jobs/:id", method = "get", operation_id = "getJob", tag = "Tag::Jobs")]
//! async fn get(&self, caller: Caller<perm::JobsRead>, id: Path<Uuid>) -> Result<Current<JobView>, ApiError> {
//!     let job = self.find(&caller.visible(), id.0).await?;
//!     Ok(Current::at_version(job.version, self.view(job).await?))
//! }
//! ```
//!
//! An operation that can refuse with more than the rules of [`crate::openapi`] derive has a line in its table of extras.

pub mod approvals;
pub mod audit;
pub mod auth;
pub mod discovery;
pub mod evidence;
pub mod jobs;
pub mod licence;
pub mod metrics;
pub mod permission;
pub mod queues;
pub mod role;
pub mod rotation;
pub mod schedules;
pub mod settings;
pub mod sso;
pub mod subscriptions;
pub mod system;
pub mod tokens;
pub mod users;

use poem_openapi::Tags;

/// Every operation that the server has: THE list.
pub type Api = (
    system::SystemApi,
    metrics::MetricsApi,
    // a tuple has at most sixteen
    (auth::AuthApi, sso::SsoApi),
    tokens::TokensApi,
    users::UsersApi,
    (subscriptions::SubscriptionsApi, subscriptions::questions::QuestionsApi),
    discovery::ScansApi,
    (discovery::AssetsApi, discovery::CoverageApi, discovery::DuplicatesApi),
    jobs::JobsApi,
    jobs::control::JobControlApi,
    jobs::events::JobEventsApi,
    schedules::SchedulesApi,
    (approvals::ApprovalsApi, audit::AuditApi, rotation::Api),
    settings::SettingsApi,
    (licence::LicenceApi, evidence::EvidenceApi),
    queues::QueuesApi,
);

/// The sections of the document.
#[derive(Tags)]
pub enum Tag {
    /// Log in and out, tokens, sessions, the caller.
    Auth,
    /// Users and API tokens.
    Users,
    /// Whether and as what the server runs.
    System,
    /// The accounts, projects, tenants and machines that are looked at.
    Subscriptions,
    /// Scans, and what they found.
    Discovery,
    /// Work that takes longer than a request.
    Jobs,
    /// Work that is begun by the clock.
    Schedules,
    /// New credentials in, old ones out.
    Rotation,
    /// What somebody else must approve.
    Approvals,
    /// What happened, and the proof of it.
    Audit,
    /// Packages that an auditor can check without us.
    Evidence,
}
