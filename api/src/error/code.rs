//! The stable machine-readable codes of refusals. A code is never renamed; a new domain refusal is one variant and one line here.

use poem::http::StatusCode;

/// Why a request was refused, as clients branch on it (`code` in the problem object).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    ValidationFailed,
    MalformedJson,
    UnknownField,
    UnknownParameter,
    UnsupportedMediaType,
    PayloadTooLarge,
    UriTooLong,
    HeadersTooLarge,
    RequestTimeout,
    NotFound,
    MethodNotAllowed,
    TokenMissing,
    TokenInvalid,
    TokenExpired,
    TokenRevoked,
    LoginFailed,
    PermissionDenied,
    TierRequired,
    LimitReached,
    CsrfFailed,
    PasswordChangeRequired,
    RateLimited,
    Conflict,
    PreconditionFailed,
    PreconditionRequired,
    IdempotencyKeyReused,
    IdempotencyInProgress,
    JobDone,
    PastPointOfNoReturn,
    NothingToRetry,
    PlanStale,
    SelfApproval,
    DatabaseUnavailable,
    Draining,
    Overloaded,
    Internal,
    /// There is no enabled subscription for the job to work on.
    NoSubscription,
    /// The subscription was switched off, so its account is not called.
    SubscriptionDisabled,
    /// The provider has no notion of further accounts.
    AccountsUnavailable,
    /// The requested mode exists in the contract but this version cannot serve it.
    ModeUnavailable,
    /// The change would leave nobody who may administer.
    LastAdmin,
    /// There are as many schedules as the settings allow.
    TooManySchedules,
    /// Nothing of this kind is rotated so.
    RotationUnsupported,
    /// An approval is given to a plan, and there is none.
    PlanRequired,
    /// The policy was switched off.
    PolicyDisabled,
    /// What is asked of a rotation does not fit where it stands.
    RotationState,
    /// A way back from the provider of single sign-on that this browser did not just begin.
    SsoStateInvalid,
    /// The provider's answer proves nothing.
    SsoFailed,
    /// It is known who it is, or that they may not come in.
    SsoDenied,
    /// The provider does not answer.
    SsoUnavailable,
    /// The package is being built, or could not be.
    EvidenceNotReady,
    /// The worker and this process do not have the same store.
    EvidenceStoreNotShared,
    /// The store does not answer, or not to us.
    EvidenceStoreUnavailable,
    /// No byte of the file is in the range.
    RangeNotSatisfiable,
}

impl Code {
    /// Every code, in the order of the contract, then the domain refusals.
    pub const ALL: &'static [Self] = &[
        Self::ValidationFailed,
        Self::MalformedJson,
        Self::UnknownField,
        Self::UnknownParameter,
        Self::UnsupportedMediaType,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::RequestTimeout,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::LoginFailed,
        Self::PermissionDenied,
        Self::TierRequired,
        Self::LimitReached,
        Self::CsrfFailed,
        Self::PasswordChangeRequired,
        Self::RateLimited,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::PreconditionRequired,
        Self::IdempotencyKeyReused,
        Self::IdempotencyInProgress,
        Self::JobDone,
        Self::PastPointOfNoReturn,
        Self::NothingToRetry,
        Self::PlanStale,
        Self::SelfApproval,
        Self::DatabaseUnavailable,
        Self::Draining,
        Self::Overloaded,
        Self::Internal,
        Self::NoSubscription,
        Self::SubscriptionDisabled,
        Self::AccountsUnavailable,
        Self::ModeUnavailable,
        Self::LastAdmin,
        Self::TooManySchedules,
        Self::RotationUnsupported,
        Self::PlanRequired,
        Self::PolicyDisabled,
        Self::RotationState,
        Self::SsoStateInvalid,
        Self::SsoFailed,
        Self::SsoDenied,
        Self::SsoUnavailable,
        Self::EvidenceNotReady,
        Self::EvidenceStoreNotShared,
        Self::EvidenceStoreUnavailable,
        Self::RangeNotSatisfiable,
    ];

    /// The wire spelling, the HTTP status it is answered with, and the title (the same for every occurrence, RFC 9457).
    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::ValidationFailed => ("validation_failed", 400, "The request is not valid"),
            Self::MalformedJson => ("malformed_json", 400, "The body is not JSON"),
            Self::UnknownField => ("unknown_field", 400, "The body has unknown fields"),
            Self::UnknownParameter => ("unknown_parameter", 400, "The query has unknown parameters"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "The content type is not supported"),
            Self::PayloadTooLarge => ("payload_too_large", 413, "The body is too large"),
            Self::UriTooLong => ("uri_too_long", 414, "The path is too long"),
            Self::HeadersTooLarge => ("headers_too_large", 431, "The headers are too large"),
            Self::RequestTimeout => ("request_timeout", 408, "The request took too long to come"),
            Self::NotFound => ("not_found", 404, "Not found"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "The method is not allowed here"),
            Self::TokenMissing => ("token_missing", 401, "Authentication is required"),
            Self::TokenInvalid => ("token_invalid", 401, "The token is not valid"),
            Self::TokenExpired => ("token_expired", 401, "The token has expired"),
            Self::TokenRevoked => ("token_revoked", 401, "The token was revoked"),
            Self::LoginFailed => ("login_failed", 401, "The login failed"),
            Self::PermissionDenied => ("permission_denied", 403, "Permission denied"),
            Self::TierRequired => ("tier_required", 403, "A higher licence tier is required"),
            Self::LimitReached => ("limit_reached", 403, "A limit of the licence is reached"),
            Self::CsrfFailed => ("csrf_failed", 403, "The cross-site request check failed"),
            Self::PasswordChangeRequired => ("password_change_required", 403, "The password must be changed first"),
            Self::RateLimited => ("rate_limited", 429, "Too many requests"),
            Self::Conflict => ("conflict", 409, "The request conflicts with the present state"),
            Self::PreconditionFailed => ("precondition_failed", 412, "The resource has changed"),
            Self::PreconditionRequired => ("precondition_required", 428, "If-Match is required"),
            Self::IdempotencyKeyReused => ("idempotency_key_reused", 422, "The idempotency key was used before"),
            Self::IdempotencyInProgress => ("idempotency_in_progress", 409, "The first request is still under way"),
            Self::JobDone => ("job_done", 409, "The job is done"),
            Self::PastPointOfNoReturn => ("past_point_of_no_return", 409, "It is too late to cancel"),
            Self::NothingToRetry => ("nothing_to_retry", 409, "There is nothing to retry"),
            Self::PlanStale => ("plan_stale", 412, "The plan is stale"),
            Self::SelfApproval => ("self_approval", 403, "Nobody approves their own request"),
            Self::DatabaseUnavailable => ("database_unavailable", 503, "The database cannot be reached"),
            Self::Draining => ("draining", 503, "The server is shutting down"),
            Self::Overloaded => ("overloaded", 503, "The server is overloaded"),
            Self::Internal => ("internal", 500, "Internal error"),
            Self::NoSubscription => ("no_subscription", 400, "There is no enabled subscription"),
            Self::SubscriptionDisabled => ("subscription_disabled", 409, "The subscription is disabled"),
            Self::AccountsUnavailable => ("accounts_unavailable", 409, "The provider has no further accounts"),
            Self::ModeUnavailable => ("mode_unavailable", 400, "The mode is not available"),
            Self::LastAdmin => ("last_admin", 409, "Somebody must be able to administer"),
            Self::SsoStateInvalid => ("sso_state_invalid", 400, "The sign-in must be begun again"),
            Self::SsoFailed => ("sso_failed", 401, "The single sign-on failed"),
            Self::SsoDenied => ("sso_denied", 403, "The single sign-on was denied"),
            Self::SsoUnavailable => ("sso_unavailable", 503, "The provider of single sign-on cannot be used"),
            Self::EvidenceNotReady => ("evidence_not_ready", 409, "The package is not there yet"),
            Self::EvidenceStoreNotShared => ("evidence_store_not_shared", 409, "The evidence store is not shared"),
            Self::EvidenceStoreUnavailable => {
                ("evidence_store_unavailable", 503, "The evidence store cannot be used now")
            }
            Self::RangeNotSatisfiable => ("range_not_satisfiable", 416, "The range is outside of the file"),
            Self::RotationUnsupported => ("rotation_unsupported", 409, "This kind is not rotated so"),
            Self::PlanRequired => ("plan_required", 409, "Plan first"),
            Self::PolicyDisabled => ("policy_disabled", 409, "The policy is disabled"),
            Self::RotationState => ("rotation_state", 409, "The rotation is not where that can be asked"),
            Self::TooManySchedules => ("too_many_schedules", 409, "There are as many schedules as allowed"),
        }
    }

    /// The wire spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status that this code is always answered with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// One sentence that is the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.facts().2
    }

    /// The problem `type`: a reference into the page of codes that every instance serves itself.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("/docs/errors#{}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_snake_case_and_refusals() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{}", code.as_str());
        }
    }
}
