//! A receiver of OTLP traces that keeps what it is sent.

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use poem::{
    Body, EndpointExt, Route, Server, handler,
    listener::{Acceptor, Listener, TcpListener},
    post,
    web::Data,
};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

type Spans = Arc<Mutex<Vec<Span>>>;

/// The running receiver; ends when it is dropped.
pub struct Collector {
    pub url: String,
    spans: Spans,
    serving: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let spans = Spans::default();
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a free port");
        let address = acceptor.local_addr().remove(0);
        let address = address.as_socket_addr().expect("a TCP address").to_string();
        let routes = Route::new().at("/v1/traces", post(take)).data(Arc::clone(&spans));
        let serving = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Self { url: format!("http://{address}"), spans, serving }
    }

    /// What came so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[handler]
async fn take(body: Body, spans: Data<&Spans>) {
    let bytes = body.into_bytes().await.expect("a body");
    let sent = ExportTraceServiceRequest::decode(bytes).expect("an export in protobuf");
    let sent = sent.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
    spans.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
}
