//! Why somebody does not come in. What is wrong with a provider's answer is for the operator's log; the client hears what to do.

use crate::{
    context,
    error::{ApiError, Code},
};
use sea_orm::DbErr;
use uuid::Uuid;

/// When a provider that did not answer may be asked again, in seconds.
const AGAIN: u32 = 5;

pub(super) enum Refusal {
    /// The browser did not begin this way, or not just now, or has ended it already.
    State,
    /// The provider does not answer, or not as one does.
    Unavailable(String),
    /// What it answered proves nothing.
    Failed(String),
    /// It is known who it is, or that they may not: what to tell them, and the user if there is one.
    Denied(String, Option<Uuid>),
    Other(ApiError),
}

impl Refusal {
    pub(super) fn user(&self) -> Option<Uuid> {
        match self {
            Self::Denied(_, user) => *user,
            _ => None,
        }
    }

    /// `provider` is its name for people. Writes the reason to the log, once.
    pub(super) fn into_error(self, provider: &str) -> ApiError {
        let request_id = context::request_id();
        match self {
            Self::State => {
                let detail = "This way back from the provider was not begun in this browser, took longer than ten minutes, or was \
                              taken before. Begin again at /api/auth/sso/login.";
                ApiError::new(Code::SsoStateInvalid, detail)
            }
            Self::Unavailable(reason) => {
                tracing::warn!(%request_id, reason, "the provider of single sign-on cannot be used");
                let detail =
                    format!("The provider ({provider}) does not answer as it should. Try again; the log says more.");
                ApiError::new(Code::SsoUnavailable, detail).with_retry_after(AGAIN)
            }
            Self::Failed(reason) => {
                tracing::warn!(%request_id, reason, "an answer of the provider of single sign-on was refused");
                let detail = format!(
                    "What the provider ({provider}) answered does not prove who you are. Begin again at /api/auth/sso/login; the \
                     log says more."
                );
                ApiError::unauthorized(Code::SsoFailed, detail)
            }
            Self::Denied(detail, user) => {
                tracing::info!(%request_id, ?user, reason = detail, "single sign-on was denied");
                ApiError::new(Code::SsoDenied, detail)
            }
            Self::Other(error) => error,
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl From<DbErr> for Refusal {
    fn from(error: DbErr) -> Self {
        Self::Other(error.into())
    }
}
