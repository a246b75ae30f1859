//! The export of the audit log, streamed.

use crate::{error::ApiError, streamed::csv};
use futures::{StreamExt, stream};
use keywright_jobs::{
    audit::{
        export::{Export, ExportError, Part},
        log::Logged,
    },
    setup::{database::Database, sealing::Sealing},
};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse, Enum,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum ExportFormat {
    Ndjson,
    Csv,
}

impl ExportFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The file, on its way.
pub struct Exported {
    format: ExportFormat,
    name: String,
    body: Body,
}

impl Exported {
    pub async fn begin(
        database: &Database,
        sealing: &Sealing,
        part: Part,
        format: ExportFormat,
    ) -> Result<Self, ExportError> {
        let name = format!("audit-{}-{}.{}", part.from, part.to, format.as_str());
        let body = match format {
            ExportFormat::Ndjson => {
                let (export, first) = Export::begin(database, sealing, part).await?;
                let rest = stream::unfold(Some(export), async |export| {
                    let mut export = export?;
                    match export.more().await {
                        Ok(bytes) => Some((Ok(bytes?), Some(export))),
                        Err(error) => Some((Err(broken(&error)), None)),
                    }
                });
                Body::from_bytes_stream(stream::iter([Ok(first)]).chain(rest))
            }
            ExportFormat::Csv => {
                let begin = Some((database.clone(), part.from, part));
                let rest = stream::unfold(begin, async |state| {
                    let (database, next, part) = state?;
                    if next >= part.to {
                        return None;
                    }
                    match part.page(&database, next).await {
                        Ok(events) => {
                            let mut rows = String::new();
                            events.iter().for_each(|event| row(event, &mut rows));
                            let next = next + events.len() as u64;
                            Some((Ok(rows.into_bytes()), Some((database, next, part))))
                        }
                        Err(error) => Some((Err(broken(&error)), None)),
                    }
                });
                Body::from_bytes_stream(stream::iter([Ok(HEAD.as_bytes().to_vec())]).chain(rest))
            }
        };
        Ok(Self { format, name, body })
    }
}

/// The connection is aborted, so that nobody takes what came for the whole.
fn broken(error: &ExportError) -> io::Error {
    tracing::warn!(%error, "an export of the audit log broke off");
    io::Error::other("the audit log could not be read to its end")
}

const HEAD: &str =
    "seq,id,at,type,actorType,actorId,actorName,subjectType,subjectId,subjectName,outcome,requestId,jobId,details\r\n";

fn row(event: &Logged, to: &mut String) {
    let (row, names) = (&event.row, event.names());
    let name =
        |name: Option<keywright_jobs::audit::proof::export::Name>| name.map(|name| name.text).unwrap_or_default();
    let cells = [
        event.seq().to_string(),
        row.id.to_string(),
        crate::timestamp::Timestamp::from(row.at).to_string(),
        row.event_type.clone(),
        row.actor_type.as_str().to_owned(),
        row.actor_id.clone().unwrap_or_default(),
        name(names.actor),
        row.subject_type.clone(),
        row.subject_id.clone().unwrap_or_default(),
        name(names.subject),
        row.outcome.as_str().to_owned(),
        row.request_id.clone().unwrap_or_default(),
        row.job_id.map(|id| id.to_string()).unwrap_or_default(),
        row.details.to_string(),
    ];
    csv::write(cells.iter().map(|text| csv::harmless(text)), to);
}

impl IntoResponse for Exported {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(self.format.media_type())
            .header("Content-Disposition", format!("attachment; filename=\"{}\"", self.name))
            .body(self.body)
    }
}

impl ApiResponse for Exported {
    fn meta() -> MetaResponses {
        let media = |content_type| MetaMediaType {
            content_type,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The file, as long as it takes; a connection that is cut has not sent the whole.",
                status: Some(200),
                status_range: None,
                content: vec![media("application/x-ndjson"), media("text/csv")],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_registry: &mut Registry) {}
}

/// What a failed beginning means to whoever asked.
pub fn refused(error: ExportError) -> ApiError {
    match error {
        ExportError::NoCheckpoint => ApiError::conflict(
            "Nothing of the log is signed yet: the first checkpoint is made when a worker starts. Try again then.",
        ),
        ExportError::NotCovered { covered } => ApiError::invalid(
            "/query/to",
            "range",
            format!(
                "The newest checkpoint covers {covered} events: `to` is at most that, and not before `from`. Events are signed \
                 within a minute."
            ),
        ),
        ExportError::Database(error) => error.into(),
        other => ApiError::internal(other),
    }
}
