//! A double of AWS Secrets Manager that keeps its own journal and holds listings back for as long as a test likes.
//!
//! Speaks just enough of the JSON 1.1 protocol for a listing. The emulators of `rig` are for whether we speak it right.

use crate::app::PATIENCE;
use base64::{Engine, prelude::BASE64_STANDARD};
use poem::{
    EndpointExt, Route, Server, handler,
    listener::{Acceptor, Listener, TcpListener},
    post,
    web::Data,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// Secrets on one page.
pub const PAGE: usize = 10;

/// The running double; ends when it is dropped.
pub struct Stub {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

struct State {
    secrets: usize,
    /// Each page after the first takes one to be answered.
    permits: Semaphore,
    /// The first secret of each page that was asked for, in the order of asking.
    journal: watch::Sender<Vec<usize>>,
    signers: Mutex<BTreeSet<Signer>>,
}

/// Whose signature a request has, and the token of a temporary session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signer {
    pub access_key: String,
    pub session: Option<String>,
}

impl Stub {
    /// Every region of every account has this many secrets. Only first pages are answered until a test lets more through.
    pub async fn start(secrets: usize) -> Self {
        let state = Arc::new(State {
            secrets,
            permits: Semaphore::new(0),
            journal: watch::Sender::new(Vec::new()),
            signers: Mutex::default(),
        });
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a free port");
        let address = acceptor.local_addr().remove(0);
        let address = address.as_socket_addr().expect("a TCP address").to_string();
        let routes = Route::new().at("/", post(answer)).data(Arc::clone(&state));
        let serving = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Self { url: format!("http://{address}"), state, serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets this many held pages through, now or when they are asked for.
    pub fn let_through(&self, pages: usize) {
        self.state.permits.add_permits(pages);
    }

    pub fn let_everything_through(&self) {
        self.let_through(Semaphore::MAX_PERMITS / 2);
    }

    /// The first secret of each page that was asked for so far.
    pub fn journal(&self) -> Vec<usize> {
        self.state.journal.borrow().clone()
    }

    /// Whose signatures were seen since this was last asked.
    pub fn signers(&self) -> Vec<Signer> {
        let mut signers = self.state.signers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *signers).into_iter().collect()
    }

    /// Waits until this page has been asked for so many times.
    pub async fn asked(&self, first_secret: usize, times: usize) {
        let mut journal = self.state.journal.subscribe();
        let asked = journal.wait_for(|pages| pages.iter().filter(|page| **page == first_secret).count() >= times);
        tokio::time::timeout(PATIENCE, asked).await.expect("the page is asked for").expect("the journal stays");
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What IAM answers, in its older protocol: nobody has an access key, and there is no server certificate.
pub(crate) fn of_iam(body: &[u8]) -> Option<String> {
    const HEAD: &str =
        "user,arn,access_key_1_active,access_key_1_last_rotated,access_key_2_active,access_key_2_last_rotated";
    let body = std::str::from_utf8(body).ok()?;
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action="))?;
    let result = match action {
        "GenerateCredentialReport" => "<State>COMPLETE</State>".to_owned(),
        "GetCredentialReport" => format!("<Content>{}</Content>", BASE64_STANDARD.encode(HEAD)),
        "ListServerCertificates" => "<IsTruncated>false</IsTruncated><ServerCertificateMetadataList/>".to_owned(),
        _ => return None,
    };
    Some(format!("<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"))
}

#[handler]
async fn answer(request: &poem::Request, body: Vec<u8>, state: Data<&Arc<State>>) -> poem::Response {
    let iam = of_iam(&body);
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let signed = request.header("authorization").and_then(|value| value.split_once("Credential=")?.1.split('/').next());
    if let Some(access_key) = signed {
        let session = request.header("x-amz-security-token").map(str::to_owned);
        let signer = Signer { access_key: access_key.to_owned(), session };
        state.signers.lock().unwrap_or_else(PoisonError::into_inner).insert(signer);
    }
    if let Some(answer) = iam {
        return poem::Response::builder().content_type("text/xml").body(answer);
    }
    let answer = match request.header("x-amz-target") {
        Some("secretsmanager.ListSecrets") => page(&state, &body).await,
        _ => json!({"CertificateSummaryList": []}),
    };
    poem::Response::builder().content_type("application/x-amz-json-1.1").body(answer.to_string())
}

async fn page(state: &State, body: &Value) -> Value {
    let start = body["NextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0);
    state.journal.send_modify(|pages| pages.push(start));
    if start > 0 {
        state.permits.acquire().await.expect("never closed").forget();
    }
    let end = (start + PAGE).min(state.secrets);
    let secrets: Vec<Value> = (start..end)
        .map(|number| {
            let name = format!("secret-{number:04}");
            json!({"ARN": format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}"), "Name": name})
        })
        .collect();
    let next = (end < state.secrets).then(|| end.to_string());
    json!({"SecretList": secrets, "NextToken": next})
}
