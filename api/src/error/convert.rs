//! How errors of the layers below become answers: one `From` per boundary.

use keywright_jobs::approvals::Unaskable;
use poem::http::StatusCode;
use sea_orm::{DbErr, RuntimeErr, SqlxError};

use super::{ApiError, Code};
use crate::context;

impl From<DbErr> for ApiError {
    /// A database that is away, full or locked is 503 and worth another try; anything else is our own fault.
    fn from(error: DbErr) -> Self {
        if is_unavailable(&error) {
            tracing::warn!(request_id = %context::request_id(), cause = %error, "database unavailable");
            Self::database_unavailable()
        } else {
            Self::internal(error)
        }
    }
}

impl From<Unaskable> for ApiError {
    fn from(refusal: Unaskable) -> Self {
        let under_way =
            "The job is under way or paused, so that nobody can be asked before it begins. Cancel it, and ask anew.";
        let awaited = "The job waits for another approval already, which somebody must decide first.";
        match refusal {
            Unaskable::NoJob(_) => Self::not_found("job"),
            Unaskable::JobDone(job) => {
                Self::new(Code::JobDone, "The job has ended already: there is nothing to approve.").with_job_id(job)
            }
            Unaskable::UnderWay(job) => Self::conflict(under_way).with_job_id(job),
            Unaskable::Awaited(job) => Self::conflict(awaited).with_job_id(job),
            Unaskable::Database(error) => error.into(),
        }
    }
}

fn is_unavailable(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => match &**error {
            SqlxError::Io(_)
            | SqlxError::Tls(_)
            | SqlxError::PoolTimedOut
            | SqlxError::PoolClosed
            | SqlxError::WorkerCrashed => true,
            SqlxError::Database(error) => error.code().is_some_and(|code| is_transient(&code)),
            _ => false,
        },
        _ => false,
    }
}

/// SQLite result codes (primary or extended, printed as decimal) and PostgreSQL SQLSTATEs that mean "not now".
fn is_transient(code: &str) -> bool {
    if code.len() == 5 {
        // connection exceptions, insufficient resources, operator intervention, serialisation, deadlock, lock timeout
        return ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
            || matches!(code, "40001" | "40P01" | "55P03" | "57014");
    }
    const SQLITE_BUSY: u32 = 5;
    const SQLITE_LOCKED: u32 = 6;
    const SQLITE_FULL: u32 = 13;
    const SQLITE_CANTOPEN: u32 = 14;
    code.parse::<u32>()
        .is_ok_and(|code| matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED | SQLITE_FULL | SQLITE_CANTOPEN))
}

/// The one shape for a refusal that the framework made itself. Nearly everything is refused by the strict-input layer before
/// the framework sees it; this is the net below. The framework's own text may quote the request and is not passed on.
#[must_use]
pub fn from_status(status: StatusCode) -> ApiError {
    let (code, detail) = match status {
        StatusCode::BAD_REQUEST => (Code::ValidationFailed, "The request does not have the documented shape."),
        StatusCode::UNAUTHORIZED => {
            return ApiError::unauthorized(Code::TokenMissing, "Send a bearer token, or log in.");
        }
        StatusCode::FORBIDDEN => (Code::PermissionDenied, "This is not allowed."),
        StatusCode::NOT_FOUND => (Code::NotFound, "There is no such path."),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "This path does not have that method."),
        StatusCode::CONFLICT => (Code::Conflict, "The request conflicts with the present state."),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::PayloadTooLarge, "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (Code::UnsupportedMediaType, "Send the body as application/json."),
        other => return ApiError::internal(format_args!("the framework answered {other}")),
    };
    ApiError::new(code, detail)
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database};

    use super::*;

    #[test]
    fn transient_codes_of_both_databases() {
        for code in ["5", "261", "517", "6", "08006", "53300", "57P01", "40001", "55P03"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["1", "19", "2067", "23505", "42P01", "22001"] {
            assert!(!is_transient(code), "{code}");
        }
    }

    #[tokio::test]
    async fn a_broken_statement_is_internal_and_says_nothing_of_it() {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        let error = db.execute_unprepared("SELECT hunter2 FROM nowhere").await.unwrap_err();
        let error = ApiError::from(error);
        assert_eq!(error.code(), Code::Internal);
        assert!(!error.detail().contains("hunter2") && !error.detail().contains("nowhere"));
        db.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_pool_is_unavailable_with_retry_after() {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        let kept = db.clone();
        db.close().await.unwrap();
        let error = ApiError::from(kept.execute_unprepared("SELECT 1").await.unwrap_err());
        assert_eq!(error.code(), Code::DatabaseUnavailable);
        let response = poem::IntoResponse::into_response(error);
        assert_eq!(response.header("retry-after"), Some("2"));
    }
}
