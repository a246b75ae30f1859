//! A double of Google Cloud KMS, after its documented REST interface: `POST …/cryptoKeys/KEY:encrypt` and `:decrypt`. No emulator
//! of it can be installed.

use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, handler,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
    post,
    web::{Data, Path},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

const RING: &str = "projects/acme/locations/europe-west1/keyRings/keywright/cryptoKeys";

/// The running double; ends when it is dropped.
pub struct GcpKms {
    url: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    keys: Vec<String>,
    /// By ciphertext: the key, the plaintext and what it is bound to.
    encrypted: HashMap<String, (String, Value, Value)>,
    journal: Vec<String>,
    status: Option<u16>,
}

/// The name of a key, as `KEYWRIGHT_MASTER_KEY_KMS` takes it.
pub fn name(key: &str) -> String {
    format!("gcp-kms:{RING}/{key}")
}

impl GcpKms {
    /// With these keys.
    pub async fn start(keys: &[&str]) -> Self {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let state = Arc::new(Mutex::new(State { keys, ..State::default() }));
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a free port");
        let address = acceptor.local_addr().remove(0);
        let address = address.as_socket_addr().expect("a TCP address").to_string();
        let routes = Route::new().at(format!("/v1/{RING}/:call"), post(answer)).data(Arc::clone(&state));
        let serving = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Self { url: format!("http://{address}"), state, serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The calls since this was last asked, e.g. `encrypt main`.
    pub fn journal(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).journal)
    }

    /// Refuses everything with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).status = Some(status);
    }
}

impl Drop for GcpKms {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[handler]
fn answer(
    Path(call): Path<String>,
    request: &poem::Request,
    body: Vec<u8>,
    state: Data<&Arc<Mutex<State>>>,
) -> Response {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (key, verb) = call.split_once(':').unwrap_or((&call, ""));
    state.journal.push(format!("{verb} {key}"));
    let signed = request.header("authorization").is_some_and(|token| token.starts_with("Bearer ey"));
    let refused = |status: u16, word: &str| {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = json!({"error": {"code": status.as_u16(), "message": "double", "status": word}});
        error.to_string().with_status(status).into_response()
    };
    if let Some(status) = state.status {
        return refused(status, "ORDERED");
    }
    if !signed {
        return refused(401, "UNAUTHENTICATED");
    }
    if !state.keys.iter().any(|known| known == key) {
        return refused(404, "NOT_FOUND");
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let name = format!("{RING}/{key}");
    let bound = body["additionalAuthenticatedData"].clone();
    let answer = match verb {
        "encrypt" => {
            // base64 letters that tell nothing of the plaintext
            let ciphertext = format!("Q0lQSEVS{:08}", state.encrypted.len());
            let of = (key.to_owned(), body["plaintext"].clone(), bound);
            state.encrypted.insert(ciphertext.clone(), of);
            json!({"name": format!("{name}/cryptoKeyVersions/1"), "ciphertext": ciphertext, "protectionLevel": "SOFTWARE"})
        }
        "decrypt" => match state.encrypted.get(body["ciphertext"].as_str().expect("a text")) {
            Some((by, plaintext, to)) if by == key && *to == bound => {
                json!({"plaintext": plaintext, "usedPrimary": true})
            }
            _ => return refused(400, "INVALID_ARGUMENT"),
        },
        _ => return refused(404, "NOT_FOUND"),
    };
    answer.to_string().with_content_type("application/json").into_response()
}

/// The key file of a service account, which signs its tokens by itself.
pub struct ServiceAccount(NamedTempFile);

impl ServiceAccount {
    pub fn path(&self) -> &str {
        self.0.path().to_str().expect("a plain path")
    }
}

/// Makes one.
pub fn service_account() -> ServiceAccount {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
    let account = json!({
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": key.serialize_pem(),
        "client_email": "keywright@acme.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:9/token",
    });
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(account.to_string().as_bytes()).expect("written");
    ServiceAccount(file)
}
