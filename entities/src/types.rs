//! The words that columns and clients share.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Defines an enumeration that is stored as text, read from text and shown as the same text.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $(#[sea_orm(string_value = $text)] #[serde(rename = $text)] $variant),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The variant of this exact text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_enum! {
    /// A cloud, or `local` for the machine a worker runs on.
    ProviderKind { Aws = "aws", Gcp = "gcp", Azure = "azure", Local = "local" }
}

text_enum! {
    AssetType { Secret = "secret", Key = "key", Certificate = "certificate", Credential = "credential" }
}

text_enum! {
    /// What an asset is to something else: a certificate is used by a load balancer, a secret encrypted by a key, a key named by an
    /// alias; a credential belongs to a user.
    Relates { UsedBy = "used_by", EncryptedBy = "encrypted_by", NamedBy = "named_by", BelongsTo = "belongs_to" }
}

text_enum! {
    /// Where a job stands. `queued`, `running`, `waiting` and `canceling` are open; the others are ends.
    JobState {
        Queued = "queued", Running = "running", Waiting = "waiting", Succeeded = "succeeded", Partial = "partial",
        Failed = "failed", Canceling = "canceling", Canceled = "canceled",
    }
}

impl JobState {
    /// Whether the job has ended.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed | Self::Canceled)
    }
}

text_enum! {
    /// What a waiting job waits for.
    WaitingFor {
        Retry = "retry", Snooze = "snooze", Pause = "pause", Approval = "approval", Quota = "quota", Worker = "worker",
        Human = "human",
    }
}

text_enum! {
    /// What caused a job.
    Trigger { Api = "api", Schedule = "schedule", Retry = "retry", Event = "event" }
}

text_enum! {
    ActorType { User = "user", Token = "token", Schedule = "schedule", Event = "event", System = "system" }
}

text_enum! {
    /// From least to most: each role may do what the ones before it may, except that an auditor cannot start anything and an
    /// operator cannot read audit and evidence.
    Role { Viewer = "viewer", Auditor = "auditor", Operator = "operator", Admin = "admin" }
}

text_enum! {
    ScanMode { Full = "full", Delta = "delta", Force = "force" }
}

text_enum! {
    /// What becomes of a schedule's instants that nobody saw: nothing, the last of them fires, or each.
    CatchUp { None = "none", Last = "last", All = "all" }
}

text_enum! {
    /// What came of one instant of a schedule.
    RunOutcome { Started = "started", Joined = "joined", Refused = "refused", Missed = "missed" }
}

text_enum! {
    /// What a scan found of an asset against what was known.
    Change { Created = "created", Changed = "changed", Unchanged = "unchanged", Removed = "removed" }
}

text_enum! {
    Outcome { Success = "success", Failure = "failure", Denied = "denied" }
}

text_enum! {
    /// Where the approval of something stands. All but `pending` are ends.
    ApprovalState { Pending = "pending", Approved = "approved", Denied = "denied", Expired = "expired" }
}
