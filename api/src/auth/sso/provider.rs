//! The provider: what it says about itself, its keys, codes for tokens, and the verification of ID tokens.
//!
//! What its documents name (token endpoint, keys) is asked only where the egress guard lets anybody's addresses lead to, and over
//! https; the issuer's own host and port were chosen by the operator and are exempt.

use super::{Registration, refusal::Refusal, states::Begun};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use keywright_jobs::{
    egress::{EgressGuard, FetchError, GuardedHttp},
    setup::clock::Clock,
};
use openidconnect::{
    AdditionalProviderMetadata, AsyncHttpClient, AuthType, AuthenticationFlow, AuthorizationCode,
    ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, DiscoveryError, HttpRequest, HttpResponse, IssuerUrl,
    Nonce, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, RequestTokenError, Scope,
    SignatureVerificationError, TokenResponse,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreGrantType, CoreIdToken,
        CoreIdTokenVerifier, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
        CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType,
        CoreSubjectIdentifierType,
    },
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use url::Url;

/// How long an answer of the provider may take, all in all, and how large it may be.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST: usize = 1 << 20;
/// How long what the provider says about itself, and its keys, are believed.
const BELIEVED: Duration = Duration::from_secs(3600);
/// After a failure nobody asks again for this long: whoever waited behind it hears the same.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How far its clock may be off ours.
const LEEWAY: TimeDelta = TimeDelta::seconds(60);
/// Signatures that only the provider can make: none whose key is the client's secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Errors by which a provider says that somebody may not, or did not, come in (RFC 6749, 4.1.2.1; OpenID Connect Core, 3.1.2.6).
const DENIALS: [&str; 5] =
    ["access_denied", "login_required", "interaction_required", "consent_required", "account_selection_required"];
/// Errors that pass.
const OUTAGES: [&str; 2] = ["server_error", "temporarily_unavailable"];

type Metadata = ProviderMetadata<
    Further,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What of the document `openidconnect` does not read itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Further {
    /// Ways back name the issuer (RFC 9207).
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Further {}

/// What the provider says about itself, and its keys.
pub struct Known {
    metadata: Metadata,
    keys: CoreJsonWebKeySet,
    /// When it said so.
    at: Instant,
}

/// What a browser came back with, once its state was found good.
pub struct Answer {
    pub code: Option<String>,
    pub iss: Option<String>,
    pub error: Option<String>,
}

/// The claims of an ID token that was found genuine and ours.
#[derive(Debug)]
pub struct Person {
    pub subject: String,
    pub claims: Map<String, Value>,
}

/// The provider that the operator named.
pub struct Provider {
    registration: Registration,
    http: ProviderHttp,
    clock: Clock,
    known: Mutex<Option<Arc<Known>>>,
    /// One at a time asks; what failed last, and when.
    asking: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl Provider {
    pub fn new(registration: Registration, guard: &EgressGuard, clock: Clock) -> Self {
        let issuer = registration.issuer.url().clone();
        let guard = match issuer.host_str().zip(issuer.port_or_known_default()) {
            Some((host, port)) => guard.clone().with_place(host, port),
            None => guard.clone(),
        };
        let http = ProviderHttp { inner: GuardedHttp::new(guard, PATIENCE, MOST), issuer };
        Self { registration, http, clock, known: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// What is known of the provider; asks when nothing is, or when it is old.
    pub(super) async fn known(&self) -> Result<Arc<Known>, Refusal> {
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        let mut failed = self.asking.lock().await;
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        if let Some((at, reason)) = failed.as_ref()
            && at.elapsed() < AFTER_FAILURE
        {
            return Err(Refusal::Unavailable(reason.clone()));
        }
        match self.discover().await {
            Ok(known) => {
                *failed = None;
                Ok(self.keep(known))
            }
            Err(reason) => {
                *failed = Some((Instant::now(), reason.clone()));
                Err(Refusal::Unavailable(reason))
            }
        }
    }

    fn fresh(&self) -> Option<Arc<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(|known| known.at.elapsed() < BELIEVED)
    }

    fn keep(&self, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
        known
    }

    async fn discover(&self) -> Result<Known, String> {
        let issuer = self.issuer()?;
        let metadata = Metadata::discover_async(issuer, &self.http).await.map_err(discovery_failed)?;
        let place = metadata.authorization_endpoint().url();
        if !self.http.is_fit(place) {
            return Err(format!("it names {} for people to log in at, which is not https", origin(place)));
        }
        if metadata.token_endpoint().is_none() {
            return Err("it names no token endpoint".to_owned());
        }
        Ok(Known { keys: metadata.jwks().clone(), metadata, at: Instant::now() })
    }

    /// Asks for the keys once more, unless somebody else did since.
    async fn with_new_keys(&self, known: &Arc<Known>) -> Result<Arc<Known>, Refusal> {
        let _alone = self.asking.lock().await;
        if let Some(newer) = self.fresh().filter(|newer| !Arc::ptr_eq(newer, known)) {
            return Ok(newer);
        }
        let keys = CoreJsonWebKeySet::fetch_async(known.metadata.jwks_uri(), &self.http).await;
        let keys = keys.map_err(|error| Refusal::Unavailable(discovery_failed(error)))?;
        Ok(self.keep(Known { metadata: known.metadata.clone(), keys, at: known.at }))
    }

    /// Where a browser goes to be asked who its user is.
    pub(super) fn authorization(&self, known: &Known, begun: &Begun) -> Url {
        let (state, nonce) = (begun.state.clone(), begun.nonce.clone());
        let (id, secret) = self.credentials();
        let client = CoreClient::from_provider_metadata(known.metadata.clone(), id, secret);
        let client = client.set_redirect_uri(self.redirect());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(begun.verifier.clone()));
        let scopes = self.registration.settings.scopes.iter().filter(|scope| *scope != "openid");
        let request = client.authorize_url(flow, move || CsrfToken::new(state), move || Nonce::new(nonce));
        let request = request.add_scopes(scopes.map(|scope| Scope::new(scope.clone()))).set_pkce_challenge(challenge);
        request.url().0
    }

    /// Who came back.
    pub(super) async fn identify(&self, known: Arc<Known>, answer: Answer, begun: &Begun) -> Result<Person, Refusal> {
        self.check_sender(&known, answer.iss.as_deref())?;
        if let Some(error) = answer.error {
            return Err(self.refused(&error));
        }
        let code = answer.code.ok_or_else(|| Refusal::Failed("there is neither a code nor an error".to_owned()))?;
        let token = self.exchange(&known, code, begun.verifier.clone()).await?;
        let nonce = Nonce::new(begun.nonce.clone());
        // a key that is not known, or that signs otherwise than it did, may be new: only the provider itself, which just gave
        // us this token, can make us ask, and once
        let verified = match self.verify(&known, &token, &nonce) {
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey
                | SignatureVerificationError::CryptoError(_)
                | SignatureVerificationError::AmbiguousKeyId(_),
            )) => self.verify(&*self.with_new_keys(&known).await?, &token, &nonce),
            verified => verified,
        };
        verified.map_err(|error| Refusal::Failed(format!("the ID token: {error}")))?;
        self.person(&token)
    }

    /// Who answers must be whom we asked, or a second provider could be handed the first one's codes (RFC 9207).
    fn check_sender(&self, known: &Known, iss: Option<&str>) -> Result<(), Refusal> {
        match iss {
            Some(iss) if iss != self.registration.issuer.as_str() => {
                Err(Refusal::Failed("the way back names another issuer".to_owned()))
            }
            None if known.metadata.additional_metadata().authorization_response_iss_parameter_supported => {
                Err(Refusal::Failed("the way back names no issuer, and this provider always does".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, error: &str) -> Refusal {
        let provider = &self.registration.settings.name;
        if DENIALS.contains(&error) {
            return Refusal::Denied(format!("The provider ({provider}) did not let you in ({error})."), None);
        }
        // what comes in a query may be anybody's words
        let known = error.len() <= 60 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let reason = format!("it sent the error {}", if known { error } else { "of a name that is none" });
        if OUTAGES.contains(&error) { Refusal::Unavailable(reason) } else { Refusal::Failed(reason) }
    }

    async fn exchange(&self, known: &Known, code: String, verifier: String) -> Result<CoreIdToken, Refusal> {
        let (id, secret) = self.credentials();
        let client = CoreClient::from_provider_metadata(known.metadata.clone(), id, secret);
        let client = client.set_redirect_uri(self.redirect());
        // RFC 8414: without the list it takes Basic
        let ways = known.metadata.token_endpoint_auth_methods_supported();
        let in_body = ways.is_some_and(|ways| {
            !ways.contains(&CoreClientAuthMethod::ClientSecretBasic)
                && ways.contains(&CoreClientAuthMethod::ClientSecretPost)
        });
        let client = if in_body { client.set_auth_type(AuthType::RequestBody) } else { client };
        let request = client.exchange_code(AuthorizationCode::new(code));
        let request = request.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let answer = request.set_pkce_verifier(PkceCodeVerifier::new(verifier)).request_async(&self.http).await;
        let answer = answer.map_err(|error| match error {
            RequestTokenError::ServerResponse(error) if error.error().as_ref() == "invalid_grant" => {
                Refusal::Failed("the token endpoint did not take the code (invalid_grant)".to_owned())
            }
            RequestTokenError::ServerResponse(error) => {
                Refusal::Unavailable(format!("the token endpoint answered {:.60}", error.error().as_ref()))
            }
            RequestTokenError::Request(error) => Refusal::Unavailable(format!("the token endpoint: {}", chain(&error))),
            // the rest of it may quote the tokens
            RequestTokenError::Parse(error, _) => {
                Refusal::Unavailable(format!("the token endpoint's answer cannot be read at {}", error.path()))
            }
            RequestTokenError::Other(error) => Refusal::Unavailable(format!("the token endpoint: {error}")),
        })?;
        answer.id_token().cloned().ok_or_else(|| Refusal::Failed("the token endpoint gave no ID token".to_owned()))
    }

    /// Checks signature, issuer, audience, times and nonce.
    fn verify(&self, known: &Known, token: &CoreIdToken, nonce: &Nonce) -> Result<(), ClaimsVerificationError> {
        let now = self.clock.now();
        let issued = move |at: DateTime<Utc>| {
            if at <= now + LEEWAY { Ok(()) } else { Err("it was issued in the future".to_owned()) }
        };
        let (issuer, keys) = (known.metadata.issuer().clone(), known.keys.clone());
        // as for a client without a secret: by the secret nobody signs
        let verifier = CoreIdTokenVerifier::new_public_client(self.credentials().0, issuer, keys)
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(move || now - LEEWAY)
            .set_issue_time_verifier_fn(issued);
        token.claims(&verifier, nonce).map(|_| ())
    }

    /// What a verified token says.
    fn person(&self, token: &CoreIdToken) -> Result<Person, Refusal> {
        let failed = |reason: &str| Refusal::Failed(format!("the ID token: {reason}"));
        let text = zeroize::Zeroizing::new(token.to_string());
        let payload =
            text.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok());
        let claims: Option<Map<String, Value>> = payload.and_then(|payload| serde_json::from_slice(&payload).ok());
        let claims = claims.ok_or_else(|| failed("its claims cannot be read"))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("azp").is_some_and(|party| party != self.registration.client_id) {
            return Err(failed("it was issued to another client"));
        }
        let begins = claims.get("nbf").and_then(Value::as_f64);
        let latest = (self.clock.now() + LEEWAY).timestamp();
        if begins.is_some_and(|begins| begins > latest as f64) {
            return Err(failed("it is not valid yet"));
        }
        let subject = text("sub").filter(|sub| (1..=255).contains(&sub.len()) && !sub.chars().any(char::is_control));
        let subject = subject.ok_or_else(|| failed("its subject is empty or longer than 255 bytes"))?.to_owned();
        Ok(Person { subject, claims })
    }

    fn credentials(&self) -> (ClientId, Option<ClientSecret>) {
        let secret = self.registration.client_secret.as_ref();
        let secret = secret.map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        (ClientId::new(self.registration.client_id.clone()), secret)
    }

    fn redirect(&self) -> RedirectUrl {
        RedirectUrl::from_url(self.registration.redirect_url.clone())
    }

    fn issuer(&self) -> Result<IssuerUrl, String> {
        IssuerUrl::new(self.registration.issuer.as_str().to_owned()).map_err(|error| error.to_string())
    }
}

fn discovery_failed(error: DiscoveryError<FetchError>) -> String {
    match error {
        DiscoveryError::Request(error) => chain(&error),
        DiscoveryError::Parse(error) => format!("its document cannot be read at {}", error.path()),
        error => error.to_string(),
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The client that `openidconnect` asks with.
struct ProviderHttp {
    inner: GuardedHttp,
    issuer: Url,
}

impl ProviderHttp {
    /// Whether an address may be used at all: over plain http only the issuer's own, which then is on this machine.
    fn is_fit(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.origin() == self.issuer.origin()
    }
}

impl<'c> AsyncHttpClient<'c> for ProviderHttp {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let url = Url::parse(&request.uri().to_string()).ok().filter(|url| self.is_fit(url));
            match url {
                Some(_) => self.inner.send(request).await,
                None => Err(FetchError::Address(request.uri().host().unwrap_or_default().to_owned())),
            }
        })
    }
}
