//! The layer around the edge: whom a request comes from, how often they may ask, and which other origins may read the answer.

use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, Request, Response, Result};

use crate::client_address::{ClientAddress, TrustedProxies};
use crate::cors::Cors;
use crate::limits::{self, ChargeSlot, RateLimits};

/// The layer. What it needs to know is the operator's.
pub struct Front {
    pub proxies: TrustedProxies,
    pub cors: Cors,
    /// `None`: requests are not counted.
    pub limits: Option<RateLimits>,
    /// We end TLS ourselves: browsers are told to come back no other way.
    pub tls: bool,
    pub inner: BoxEndpoint<'static, Response>,
}

impl Endpoint for Front {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        if let Some(preflight) = self.cors.preflight(&request) {
            return Ok(preflight);
        }
        let client = self.proxies.client(&request);
        request.extensions_mut().insert(ClientAddress(client));
        let counted = self.limits.as_ref().filter(|_| request.uri().path().starts_with("/api/"));
        let slot = ChargeSlot::default();
        if counted.is_some() {
            request.extensions_mut().insert(slot.clone());
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut response = self.inner.call(request).await?;
        if let Some(limits) = counted {
            let given_back = response.status() == StatusCode::NOT_MODIFIED;
            limits::set_headers(response.headers_mut(), &limits.after(&slot, client, given_back));
        }
        self.cors.allow(origin.as_ref(), response.headers_mut());
        if self.tls {
            let year = HeaderValue::from_static("max-age=31536000");
            response.headers_mut().entry(header::STRICT_TRANSPORT_SECURITY).or_insert(year);
        }
        Ok(response)
    }
}
