//! Where requests are counted: after it is known who asks, before what they ask is looked at.

use std::sync::Arc;

use async_trait::async_trait;
use poem::Request;

use super::{ChargeSlot, RateLimits, Refusal, Whose};
use crate::auth::{Credential, Identity, IdentityGate, caller};
use crate::client_address::client_address;
use crate::error::ApiError;
use crate::strict::{Gate, Operation};

/// Operations by which somebody unknown becomes known.
const LOGINS: &[&str] = &["login", "ssoLogin", "ssoCallback"];

/// The identity gate, and the count of requests behind it. Who fails to say who they are counts by their address.
pub struct LimitGate {
    identity: Arc<Identity>,
    limits: RateLimits,
    inner: IdentityGate,
}

impl LimitGate {
    pub fn new(identity: Arc<Identity>, limits: RateLimits) -> Self {
        Self { inner: IdentityGate(Arc::clone(&identity)), identity, limits }
    }

    async fn charge(&self, request: &Request, whose: Whose) -> Result<(), ApiError> {
        let slot = request.data::<ChargeSlot>().cloned().unwrap_or_default();
        self.limits.charge(whose, &slot).await.map_err(|refusal| match refusal {
            Refusal::UsedUp { retry_after } => ApiError::rate_limited(retry_after),
            Refusal::Unknown => ApiError::database_unavailable(),
        })
    }
}

#[async_trait]
impl Gate for LimitGate {
    async fn admit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        let admitted = self.inner.admit(request, operation).await;
        if !operation.pattern.starts_with("/api/") {
            return admitted;
        }
        let whose = match request.data::<caller::Principal>() {
            Some(principal) => whose(principal),
            _ if LOGINS.contains(&operation.id.as_str()) => Whose::login(client_address(request)),
            _ => Whose::address(client_address(request)),
        };
        self.charge(request, whose).await?;
        admitted
    }

    async fn readmit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        self.inner.admit(request, operation).await
    }

    async fn turn_away(&self, request: &Request) -> Result<(), ApiError> {
        let path = request.uri().path();
        if path != "/api" && !path.starts_with("/api/") {
            return Ok(());
        }
        let whose = match caller::authenticate(&self.identity, request).await {
            Ok(principal) => whose(&principal),
            Err(_) => Whose::address(client_address(request)),
        };
        self.charge(request, whose).await
    }
}

fn whose(principal: &caller::Principal) -> Whose {
    match principal.credential {
        Credential::Session { .. } => Whose::User(principal.user_id),
        Credential::ApiToken { id, .. } => Whose::Token(id),
    }
}
