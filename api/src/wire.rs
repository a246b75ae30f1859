//! The words of the wire, as schemas: the same texts that the database keeps, told to clients as enumerations.

use keywright_entities::types;
use keywright_jobs::{domain::inventory::Status as DerivedStatus, job::Job, kinds::discovery::scan::Scan};
use poem_openapi::Enum;

/// Defines a documented enumeration that mirrors one of [`types`], variant by variant.
macro_rules! mirrored {
    ($($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
        pub enum $name {
            $(#[oai(rename = $text)] $variant),+
        }

        impl From<types::$name> for $name {
            fn from(word: types::$name) -> Self {
                match word { $(types::$name::$variant => Self::$variant),+ }
            }
        }

        impl From<$name> for types::$name {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant),+ }
            }
        }
    )+};
}

mirrored! {
    ProviderKind { Aws = "aws", Gcp = "gcp", Azure = "azure", Local = "local" }

    AssetType { Secret = "secret", Key = "key", Certificate = "certificate", Credential = "credential" }

    /// `succeeded`, `partial`, `failed` and `canceled` are ends.
    JobState {
        Queued = "queued", Running = "running", Waiting = "waiting", Succeeded = "succeeded", Partial = "partial",
        Failed = "failed", Canceling = "canceling", Canceled = "canceled",
    }

    /// What a waiting job waits for.
    WaitingFor {
        Retry = "retry", Snooze = "snooze", Pause = "pause", Approval = "approval", Quota = "quota", Worker = "worker",
        Human = "human",
    }

    Trigger { Api = "api", Schedule = "schedule", Retry = "retry", Event = "event" }

    ActorType { User = "user", Token = "token", Schedule = "schedule", Event = "event", System = "system" }

    /// `full`: list everything, and read the details of what changed and of what was last looked at closely long ago. `delta`: list
    /// everything, and read the details only of what the lists say has changed. `force`: read every detail again.
    ScanMode { Full = "full", Delta = "delta", Force = "force" }

    /// What becomes of instants that no worker saw in time. `none`: nothing. `last`: the last of them fires. `all`: each of them
    /// fires, the latest 100 at most.
    CatchUp { None = "none", Last = "last", All = "all" }

    /// `started`: a job. `joined`: the same was under way. `refused`: no job, see the reason. `missed`: no worker looked in time.
    RunOutcome { Started = "started", Joined = "joined", Refused = "refused", Missed = "missed" }

    /// `expired`: nobody decided in time, or its job ended before.
    ApprovalState { Pending = "pending", Approved = "approved", Denied = "denied", Expired = "expired" }

    /// What an asset is to the other end of a relation: a certificate is used by a load balancer, a secret encrypted by a key, a key
    /// named by an alias; a credential belongs to a user.
    Relates { UsedBy = "used_by", EncryptedBy = "encrypted_by", NamedBy = "named_by", BelongsTo = "belongs_to" }

    /// What a scan found of an asset against what was known.
    Change { Created = "created", Changed = "changed", Unchanged = "unchanged", Removed = "removed" }
}

/// How close to its end an asset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    Warning,
    Critical,
    Expired,
    /// It has no date.
    Unknown,
}

impl From<DerivedStatus> for Status {
    fn from(status: DerivedStatus) -> Self {
        match status {
            DerivedStatus::Healthy => Self::Healthy,
            DerivedStatus::Warning => Self::Warning,
            DerivedStatus::Critical => Self::Critical,
            DerivedStatus::Expired => Self::Expired,
            DerivedStatus::Unknown => Self::Unknown,
        }
    }
}

impl From<Status> for DerivedStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Healthy => Self::Healthy,
            Status::Warning => Self::Warning,
            Status::Critical => Self::Critical,
            Status::Expired => Self::Expired,
            Status::Unknown => Self::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Priority {
    Low,
    Normal,
    High,
}

impl From<Priority> for i32 {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => -1,
            Priority::Normal => 0,
            Priority::High => 1,
        }
    }
}

impl From<i32> for Priority {
    fn from(rank: i32) -> Self {
        match rank {
            ..0 => Self::Low,
            0 => Self::Normal,
            1.. => Self::High,
        }
    }
}

/// The kinds of job that can be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum ScheduleKind {
    #[oai(rename = "discovery.scan")]
    Scan,
}

impl ScheduleKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scan => Scan::KIND,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        (text == Scan::KIND).then_some(Self::Scan)
    }
}
