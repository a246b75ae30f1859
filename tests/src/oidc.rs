//! An OpenID provider that does what a test tells it to, also what none should. It checks what a client sends: PKCE by S256, the
//! client's secret, the redirect address, each code once.

use crate::http::{Answer, Api, Client};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use keywright_api::auth::sso::Registration;
use keywright_jobs::setup::{
    clock::Clock,
    config::{Loaded, Machine, Sources},
};
use poem::{
    EndpointExt, Route, Server, get, handler,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
    post,
    web::{Data, Form},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::JoinHandle;

pub const CLIENT_ID: &str = "keywright";
pub const CLIENT_SECRET: &str = "a secret: of/the client+";
pub const REDIRECT_URL: &str = "http://127.0.0.1/api/auth/sso/callback";

/// The settings of an instance that is registered at this issuer; `more` are further ones.
pub fn registration(issuer: &str, more: &[(&str, &str)]) -> Registration {
    let given = [
        ("KEYWRIGHT_OIDC_ISSUER", issuer),
        ("KEYWRIGHT_OIDC_CLIENT_ID", CLIENT_ID),
        ("KEYWRIGHT_OIDC_CLIENT_SECRET", CLIENT_SECRET),
        ("KEYWRIGHT_OIDC_REDIRECT_URL", REDIRECT_URL),
        ("KEYWRIGHT_OIDC_ROLES", "it=admin,ops=operator,staff=viewer"),
    ];
    let all: BTreeMap<String, String> =
        given.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let machine = Machine { host_name: "test".to_owned(), cores: 1 };
    let loaded = Loaded::from_sources(&Sources::new(all), &machine).expect("right settings");
    Registration::of(&loaded.config).expect("no file").expect("a provider")
}

/// The running provider; ends when it is dropped.
pub struct Provider {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    url: String,
    now: Mutex<Now>,
}

/// What it does now.
#[derive(Default)]
pub struct Now {
    /// Laid over its document of itself.
    pub document: Value,
    /// Laid over the claims of every ID token.
    pub claims: Value,
    /// Laid over the head of every ID token.
    pub head: Value,
    pub signer: Signer,
    /// What the token endpoint answers instead: status, media type, body.
    pub answer: Option<(u16, &'static str, String)>,
    /// Where everything is redirected to.
    pub redirect: Option<String>,
    keys: Vec<Key>,
    /// How many codes were given out: those that were redeemed are gone from `codes`.
    given: usize,
    codes: HashMap<String, Grant>,
    /// Paths that were asked for.
    journal: Vec<String>,
}

/// Who signs ID tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signer {
    #[default]
    Itself,
    /// A key that is not its, under the name of one that is.
    Somebody,
    /// Nobody: `alg` none.
    Nobody,
    /// HS256 with the client's secret.
    ClientSecret,
    /// HS256 with the text of the public key, which everybody knows.
    PublicKey,
}

struct Key {
    kid: String,
    pair: Ed25519KeyPair,
}

struct Grant {
    claims: Value,
    nonce: Option<String>,
    challenge: String,
}

fn new_key(kid: &str) -> Key {
    Key { kid: kid.to_owned(), pair: Ed25519KeyPair::generate().expect("a key pair") }
}

impl Provider {
    pub async fn start() -> Self {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a free port");
        let address = acceptor.local_addr().remove(0);
        let url = format!("http://{}", address.as_socket_addr().expect("a TCP address"));
        let now = Now { keys: vec![new_key("first")], ..Now::default() };
        let state = Arc::new(State { url: url.clone(), now: Mutex::new(now) });
        let routes = Route::new()
            .at("/.well-known/openid-configuration", get(document))
            .at("/keys", get(keys))
            .at("/token", post(token))
            .data(Arc::clone(&state));
        let serving = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Self { url, state, serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it does from now on.
    pub fn now(&self) -> MutexGuard<'_, Now> {
        self.state.now()
    }

    /// Signs with a new key from now on; the keys before are gone.
    pub fn rotate(&self, kid: &str) {
        self.now().keys = vec![new_key(kid)];
    }

    /// How often this path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.now().journal.iter().filter(|asked| *asked == path).count()
    }

    /// Does as if somebody with these claims had logged in on the page that a browser was sent to; returns the code. Holds that
    /// the client asked as it should.
    pub fn log_in(&self, page: &str, claims: Value) -> String {
        let query = query(page);
        assert!(page.starts_with(&format!("{}/authorize?", self.url)), "{page}");
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URL),
            ("code_challenge_method", "S256"),
            ("scope", "openid profile email"),
        ] {
            assert_eq!(query.get(name).map(String::as_str), Some(value), "{name} in {page}");
        }
        assert!(query["state"].len() > 40 && query["nonce"].len() > 40, "{page}");
        let mut now = self.now();
        now.given += 1;
        let code = format!("code-{}", now.given);
        let grant = Grant { claims, nonce: query.get("nonce").cloned(), challenge: query["code_challenge"].clone() };
        now.codes.insert(code.clone(), grant);
        code
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the request; a redirect when that is what it does now.
    fn asked(&self, path: &str) -> Option<poem::Response> {
        let mut now = self.now();
        now.journal.push(path.to_owned());
        let to = now.redirect.as_ref()?;
        Some(poem::Response::builder().status(StatusCode::FOUND).header("Location", to).finish())
    }
}

impl Now {
    fn id_token(&self, issuer: &str, grant: &Grant) -> String {
        let seconds = Clock::system().now().timestamp();
        let mut claims =
            json!({"iss": issuer, "aud": CLIENT_ID, "iat": seconds, "exp": seconds + 300, "nonce": grant.nonce});
        lay_over(&mut claims, &grant.claims);
        lay_over(&mut claims, &self.claims);
        let key = self.keys.last().expect("a key");
        let algorithm = match self.signer {
            Signer::Itself | Signer::Somebody => "EdDSA",
            Signer::Nobody => "none",
            Signer::ClientSecret | Signer::PublicKey => "HS256",
        };
        let mut head = json!({"alg": algorithm, "kid": key.kid});
        lay_over(&mut head, &self.head);
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&head), encoded(&claims));
        let by =
            |secret: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref().to_vec();
        let signature = match self.signer {
            Signer::Itself => key.pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Signer::Somebody => new_key("x").pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Signer::Nobody => Vec::new(),
            Signer::ClientSecret => by(CLIENT_SECRET.as_bytes()),
            Signer::PublicKey => by(URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref()).as_bytes()),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Members of `over` win; null takes a member away.
fn lay_over(value: &mut Value, over: &Value) {
    for (name, member) in over.as_object().into_iter().flatten() {
        match member {
            Value::Null => drop(value.as_object_mut().expect("an object").remove(name)),
            member => value[name] = member.clone(),
        }
    }
}

#[handler]
fn document(state: Data<&Arc<State>>) -> poem::Response {
    if let Some(redirect) = state.asked("/.well-known/openid-configuration") {
        return redirect;
    }
    let url = &state.url;
    let mut document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    });
    lay_over(&mut document, &state.now().document);
    answered(200, "application/json", document.to_string())
}

#[handler]
fn keys(state: Data<&Arc<State>>) -> poem::Response {
    if let Some(redirect) = state.asked("/keys") {
        return redirect;
    }
    let now = state.now();
    let keys: Vec<Value> = now
        .keys
        .iter()
        .map(|key| {
            let x = URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": x})
        })
        .collect();
    answered(200, "application/json", json!({"keys": keys}).to_string())
}

#[handler]
fn token(request: &poem::Request, form: Form<HashMap<String, String>>, state: Data<&Arc<State>>) -> poem::Response {
    if let Some(redirect) = state.asked("/token") {
        return redirect;
    }
    let refused = |error: &str| answered(400, "application/json", json!({"error": error}).to_string());
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    // RFC 6749, 2.3.1: each part is a form's value before they become Basic's user and password
    let plain = format!("{CLIENT_ID}:a+secret%3A+of%2Fthe+client%2B");
    if request.header("authorization") != Some(&format!("Basic {}", STANDARD.encode(plain))) {
        return refused("invalid_client");
    }
    let mut now = state.now();
    let Some(grant) = now.codes.remove(field("code")) else { return refused("invalid_grant") };
    let proven = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes())) == grant.challenge;
    if !proven || field("grant_type") != "authorization_code" || field("redirect_uri") != REDIRECT_URL {
        return refused("invalid_grant");
    }
    if let Some((status, media_type, body)) = &now.answer {
        return answered(*status, media_type, body.clone());
    }
    let token = now.id_token(&state.url, &grant);
    let body = json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": token});
    answered(200, "application/json", body.to_string())
}

fn answered(status: u16, media_type: &str, body: String) -> poem::Response {
    poem::Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .content_type(media_type)
        .body(body)
}

/// The query of an address.
pub fn query(address: &str) -> HashMap<String, String> {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    reqwest::Url::parse(&format!("http://x/?{query}")).expect("an address").query_pairs().into_owned().collect()
}

/// A browser of somebody: keeps cookies.
#[derive(Clone)]
pub struct Browser<'a> {
    api: &'a Api,
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn of(api: &'a Api) -> Self {
        Self { api, cookies: BTreeMap::new() }
    }

    /// This browser as it asks.
    pub fn client(&self) -> Client<'a> {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let client = self.api.nobody();
        if cookies.is_empty() { client } else { client.with("Cookie", cookies.join("; ")) }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let answer = self.client().get(path).await;
        self.keep(&answer);
        answer
    }

    /// Takes the cookies of an answer.
    pub fn keep(&mut self, answer: &Answer) {
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().expect("a cookie in ASCII");
            let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Begins; returns the page of the provider that it is sent to.
    pub async fn depart(&mut self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        answer.header("location").expect("a page").to_owned()
    }

    /// Goes the whole way as somebody with these claims, up to the answer to the way back.
    pub async fn enter(&mut self, provider: &Provider, claims: Value) -> Answer {
        let page = self.depart("/api/auth/sso/login").await;
        let way = way_back(&page, &provider.log_in(&page, claims));
        self.get(&way).await
    }
}

/// The way back from this page with this code.
pub fn way_back(page: &str, code: &str) -> String {
    format!("/api/auth/sso/callback?code={code}&state={}", query(page)["state"])
}
