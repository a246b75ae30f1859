//! The HTTP client under the SDK: every request passes the gate immediately before it is sent, credential look-ups included.

use crate::providers::http::Outbound;
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

type Timeouts = (Option<Duration>, Option<Duration>);

/// The connection pools of this process, one per pair of timeouts. Trust roots and the proxy are those of the environment.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<HashMap<Timeouts, SharedHttpConnector>>);

impl Pools {
    fn connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let key = (settings.connect_timeout(), settings.read_timeout());
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(key).or_insert_with(|| open(settings, components)).clone()
    }
}

fn open(settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
    let mut builder = Connector::builder().connector_settings(settings.clone()).proxy_config(ProxyConfig::from_env());
    builder.set_sleep_impl(components.sleep_impl());
    SharedHttpConnector::new(builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build())
}

/// A client over the shared pools whose requests pass one attempt's gate.
pub(super) fn gated(pools: Arc<Pools>, outbound: Arc<Outbound>) -> SharedHttpClient {
    SharedHttpClient::new(GatedClient { pools, outbound })
}

struct GatedClient {
    pools: Arc<Pools>,
    outbound: Arc<Outbound>,
}

impl fmt::Debug for GatedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatedClient")
    }
}

impl HttpClient for GatedClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(GatedConnector {
            inner: self.pools.connector(settings, components),
            outbound: self.outbound.clone(),
        })
    }
}

#[derive(Clone)]
struct GatedConnector {
    inner: SharedHttpConnector,
    outbound: Arc<Outbound>,
}

impl fmt::Debug for GatedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatedConnector")
    }
}

impl HttpConnector for GatedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            // a user error is the one kind that no retry strategy of the SDK repeats
            this.outbound.pass().await.map_err(|stopped| ConnectorError::user(stopped.into()))?;
            this.inner.call(request).await
        })
    }
}
