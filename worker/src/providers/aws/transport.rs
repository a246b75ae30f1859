//! The HTTP client under the SDK: every request passes the gate immediately before it is sent, credential look-ups included.

use crate::providers::{egress::EgressGuard, http::Outbound};
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    dns::{DnsFuture, ResolveDns, ResolveDnsError},
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

/// The connection pools of this process: one per pair of timeouts, and per port where the address was entered by a user. Trust
/// roots and, for the operator's addresses, the proxy are those of the environment.
#[derive(Debug)]
pub(super) struct Pools {
    open: Mutex<HashMap<(Timeouts, Option<u16>), SharedHttpConnector>>,
    guard: Arc<EgressGuard>,
}

impl Pools {
    pub(super) fn new(guard: Arc<EgressGuard>) -> Self {
        Self { open: Mutex::default(), guard }
    }

    fn connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
        entered: Option<u16>,
    ) -> SharedHttpConnector {
        let key = ((settings.connect_timeout(), settings.read_timeout()), entered);
        let mut pools = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(key).or_insert_with(|| self.open(settings, components, entered)).clone()
    }

    fn open(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
        entered: Option<u16>,
    ) -> SharedHttpConnector {
        let proxy = if entered.is_some() { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
        let mut builder = Connector::builder().connector_settings(settings.clone()).proxy_config(proxy);
        builder.set_sleep_impl(components.sleep_impl());
        let builder = builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        SharedHttpConnector::new(match entered {
            Some(port) => builder.build_with_resolver(Guarded { guard: Arc::clone(&self.guard), port }),
            None => builder.build(),
        })
    }
}

/// Asks where a name leads with every connection, because that may change. Literal addresses are not resolved: they were
/// checked when the account was opened.
#[derive(Clone, Debug)]
struct Guarded {
    guard: Arc<EgressGuard>,
    port: u16,
}

impl ResolveDns for Guarded {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = self.guard.resolve(name, self.port).await.map_err(ResolveDnsError::new)?;
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }
}

/// A client over the shared pools whose requests pass one attempt's gate. `entered` is the port of an endpoint that a user
/// entered.
pub(super) fn gated(pools: Arc<Pools>, outbound: Arc<Outbound>, entered: Option<u16>) -> SharedHttpClient {
    SharedHttpClient::new(GatedClient { pools, outbound, entered })
}

struct GatedClient {
    pools: Arc<Pools>,
    outbound: Arc<Outbound>,
    entered: Option<u16>,
}

impl fmt::Debug for GatedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatedClient")
    }
}

impl HttpClient for GatedClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(GatedConnector {
            inner: self.pools.connector(settings, components, self.entered),
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
