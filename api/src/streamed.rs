//! Whole lists in one answer: `Accept: application/x-ndjson` or `text/csv` on any list.
//!
//! The layer asks the list's own operation for page after page, as a client with cursors would, and sends on the rows of each, so
//! that a list of any length takes the memory of a page. Before every page but the first the gates are asked again whether the
//! caller may go on. The pages follow one another by the keys of the list's order: a row is told twice or not at all only when
//! what the list is sorted by changes meanwhile, which nothing changes of the default orders.

mod accept;
pub mod csv;

use std::io;
use std::sync::Arc;

use futures::stream;
use poem::http::{Extensions, HeaderMap, Method, Uri, header};
use poem::{Body, Endpoint, IntoResponse, Request, Response, Result};
use serde_json::Value;
use url::form_urlencoded;

use self::accept::Format;
pub use self::csv::Columns;
use crate::context::{self, RequestContext};
use crate::error::{ApiError, PROBLEM_JSON, from_status};
use crate::page::MAX_LIMIT;
use crate::server::Flushes;
use crate::strict::{Gate, Operation};

/// Parameters that say how much of a list a page holds, which a stream decides itself.
const DECIDED: [&str; 3] = ["limit", "cursor", "includeTotal"];

/// The layer around the router.
pub struct Streamed<E> {
    inner: Arc<E>,
    gates: Vec<Arc<dyn Gate>>,
}

impl<E> Streamed<E> {
    /// `gates` are those that admitted the request.
    pub fn new(inner: E, gates: Vec<Arc<dyn Gate>>) -> Self {
        Self { inner: Arc::new(inner), gates }
    }
}

impl<E: Endpoint + 'static> Endpoint for Streamed<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let format = accept::wanted(request.headers());
        let context = request.data::<Arc<RequestContext>>().cloned();
        let operation = context.as_ref().and_then(|context| context.operation()).cloned();
        match (format, context, operation) {
            (Some(format), Some(context), Some(operation)) if operation.rows.is_some() => {
                let (inner, gates) = (Arc::clone(&self.inner), self.gates.clone());
                Pages::of(&request, inner, gates, format, context, operation).answer().await
            }
            _ => self.inner.call(request).await.map(IntoResponse::into_response),
        }
    }
}

/// A list on its way to a client.
struct Pages<E> {
    inner: Arc<E>,
    gates: Vec<Arc<dyn Gate>>,
    format: Format,
    context: Arc<RequestContext>,
    operation: Arc<Operation>,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    extensions: Extensions,
}

/// What is to be sent next.
enum Next {
    Rows(Vec<u8>, Option<String>),
    Page(String),
    /// The connection is aborted, so that nobody takes what came for the whole.
    Abort,
}

impl<E: Endpoint + 'static> Pages<E> {
    fn of(
        request: &Request,
        inner: Arc<E>,
        gates: Vec<Arc<dyn Gate>>,
        format: Format,
        context: Arc<RequestContext>,
        operation: Arc<Operation>,
    ) -> Self {
        let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned();
        let mut headers = request.headers().clone();
        headers.remove(header::ACCEPT);
        Self {
            inner,
            gates,
            format,
            context,
            operation,
            path: request.uri().path().to_owned(),
            query: query.collect(),
            headers,
            extensions: request.extensions().clone(),
        }
    }

    /// What is wrong with the request is told as for a page: nothing has been sent yet.
    async fn answer(self) -> Result<Response> {
        let begin = self.query.iter().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.clone());
        let begun = self.inner.call(self.request(begin.as_deref())?).await?.into_response();
        if !begun.status().is_success() {
            return Ok(begun);
        }
        let (rows, next) = self.rows(begun).await?;
        let mut first = match (self.format, &self.operation.rows) {
            (Format::Csv, Some(columns)) => columns.head().into_bytes(),
            _ => Vec::new(),
        };
        first.extend(rows);
        let media_type = self.format.media_type();
        let begin = Some((self, Next::Rows(first, next)));
        let body = stream::unfold(begin, |state| async move {
            let (pages, next) = state?;
            match next {
                Next::Rows(bytes, next) => Some((Ok(bytes), next.map(|cursor| (pages, Next::Page(cursor))))),
                Next::Page(cursor) => match pages.page(&cursor).await {
                    Ok((bytes, next)) => Some((Ok(bytes), next.map(|cursor| (pages, Next::Page(cursor))))),
                    Err(refusal) => {
                        let last = pages.last_line(refusal).await;
                        Some((Ok(last), Some((pages, Next::Abort))))
                    }
                },
                Next::Abort => {
                    // an abort drops what is still in buffers
                    if let Some(flushes) = pages.extensions.get::<Flushes>() {
                        flushes.next().await;
                    }
                    Some((Err(io::Error::other("the list could not be read to its end")), None))
                }
            }
        });
        Ok(Response::builder().content_type(media_type).body(Body::from_bytes_stream(body)))
    }

    /// The rows of the page that begins after `cursor`, and the cursor after them; or the refusal.
    async fn page(&self, cursor: &str) -> Result<(Vec<u8>, Option<String>), Response> {
        let reading = async {
            let mut request = self.request(Some(cursor))?;
            for gate in &self.gates {
                gate.readmit(&mut request, &self.operation).await?;
            }
            let answer = self.inner.call(request).await?.into_response();
            if answer.status().is_success() { Ok(Ok(self.rows(answer).await?)) } else { Ok(Err(answer)) }
        };
        let read: Result<_> = context::scope(Arc::clone(&self.context), reading).await;
        match read {
            Ok(read) => read,
            Err(error) => Err(context::scope(Arc::clone(&self.context), async { error.into_response() }).await),
        }
    }

    fn request(&self, cursor: Option<&str>) -> Result<Request, ApiError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        // an offset counts from the beginning, which later pages do not have
        let first = cursor.is_none() || cursor == self.asked("cursor");
        let kept = |name: &str| !DECIDED.contains(&name) && (name != "offset" || first);
        query.extend_pairs(self.query.iter().filter(|(name, _)| kept(name)));
        query.append_pair("limit", &MAX_LIMIT.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        let uri: Uri = format!("{}?{}", self.path, query.finish()).parse().map_err(ApiError::internal)?;
        let mut request = Request::builder().method(Method::GET).uri(uri).finish();
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        Ok(request)
    }

    fn asked(&self, parameter: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == parameter).map(|(_, value)| value.as_str())
    }

    /// The page's rows as they are sent, and the cursor after them.
    async fn rows(&self, mut answer: Response) -> Result<(Vec<u8>, Option<String>), ApiError> {
        let bytes = answer.take_body().into_vec().await.map_err(ApiError::internal)?;
        let page: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
        drop(bytes);
        let next = page.pointer("/meta/nextCursor").and_then(Value::as_str).map(str::to_owned);
        let mut text = String::new();
        for row in page.get("data").and_then(Value::as_array).into_iter().flatten() {
            match (self.format, &self.operation.rows) {
                (Format::Csv, Some(columns)) => columns.row(row, &mut text),
                _ => {
                    text.push_str(&row.to_string());
                    text.push('\n');
                }
            }
        }
        Ok((text.into_bytes(), next))
    }

    /// Why it ends here, for who reads lines of JSON: the refusal itself. A table has no place for it.
    async fn last_line(&self, refusal: Response) -> Vec<u8> {
        tracing::warn!(
            request_id = %self.context.request_id,
            route = self.context.route(),
            status = refusal.status().as_u16(),
            "a streamed list broke off"
        );
        let is_problem = refusal.content_type() == Some(PROBLEM_JSON);
        let problem = if is_problem {
            refusal
        } else {
            let status = refusal.status();
            context::scope(Arc::clone(&self.context), async { from_status(status).into_response() }).await
        };
        if self.format == Format::Csv {
            return Vec::new();
        }
        let mut line = problem.into_body().into_vec().await.unwrap_or_default();
        line.push(b'\n');
        line
    }
}
