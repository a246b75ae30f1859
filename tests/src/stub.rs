//! A stand-in for Secrets Manager that the test holds in its hand: it keeps a journal of its own of every page that was asked
//! for, and can hold one of them back.

use poem::{
    EndpointExt, Request, Route, Server, handler,
    listener::TcpAcceptor,
    post,
    web::{Data, Json},
};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpListener, sync::Semaphore};

const PER_PAGE: usize = 10;

/// A server of `pages` pages of ten secrets, numbered from 0. It ends with the test's runtime.
pub struct SecretsStub {
    pub url: String,
    state: Arc<State>,
}

struct State {
    pages: usize,
    /// Every page that was asked for, in order.
    journal: Mutex<Vec<usize>>,
    /// This page is held back, the first time it is asked for.
    held: usize,
    holding: AtomicBool,
    released: Semaphore,
}

impl SecretsStub {
    /// Holds page `held` back the first time that it is asked for.
    pub async fn start(pages: usize, held: usize) -> Self {
        let state = Arc::new(State {
            pages,
            journal: Mutex::default(),
            held,
            holding: AtomicBool::new(true),
            released: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let acceptor = TcpAcceptor::from_tokio(listener).expect("the listener is taken over");
        let routes = Route::new().at("/", post(answer)).data(Arc::clone(&state));
        tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
        Self { url, state }
    }

    /// How many secrets there are.
    pub fn secrets(&self) -> usize {
        self.state.pages * PER_PAGE
    }

    /// Every page that was asked for so far.
    pub fn journal(&self) -> Vec<usize> {
        self.state.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the page is held back now.
    pub fn holds(&self) -> bool {
        self.journal().contains(&self.state.held)
    }

    /// Lets the held page go.
    pub fn release(&self) {
        self.state.released.add_permits(1);
    }
}

#[handler]
async fn answer(request: &Request, body: Vec<u8>, state: Data<&Arc<State>>) -> Json<Value> {
    if request.header("x-amz-target") != Some("secretsmanager.ListSecrets") {
        return Json(json!({}));
    }
    let body: Value = serde_json::from_slice(&body).expect("a request in JSON");
    let page = body["NextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0);
    state.journal.lock().unwrap_or_else(PoisonError::into_inner).push(page);
    if page == state.held && state.holding.swap(false, Ordering::SeqCst) {
        state.released.acquire().await.expect("the semaphore is never closed").forget();
    }
    let secrets: Vec<Value> = (0..PER_PAGE)
        .map(|n| {
            let name = format!("secret-{page:03}-{n}");
            json!({"ARN": format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}"), "Name": name})
        })
        .collect();
    let mut reply = json!({"SecretList": secrets});
    if page + 1 < state.pages {
        reply["NextToken"] = json!((page + 1).to_string());
    }
    Json(reply)
}
