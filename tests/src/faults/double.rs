//! A cloud that is asked over HTTP, writes down each request before it answers, and tells what is to happen in the worker.

use super::cloud::{Ask, Order, Reply, Step};
use crate::app::patience;
use poem::{
    EndpointExt, Route, Server, handler,
    listener::{Acceptor, Listener, TcpListener},
    post,
    web::{Data, Json},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

/// What an account is like.
#[derive(Clone, Debug)]
pub struct Plan {
    pub regions: usize,
    /// Of each region.
    pub pages: u32,
    /// On each page.
    pub secrets: usize,
    /// For every step of which nothing else is said.
    pub order: Option<Order>,
    pub special: Vec<Special>,
}

/// What is ordered at this step, so many times.
#[derive(Clone, Debug)]
pub struct Special {
    pub step: Step,
    pub order: Order,
    pub times: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { regions: 2, pages: 3, secrets: 4, order: None, special: Vec::new() }
    }
}

impl Plan {
    /// An account of one region with one page, at which this happens, so many times.
    pub fn once(order: Order, times: u32) -> Self {
        let special = vec![Special { step: page(0, 0), order, times }];
        Self { regions: 1, pages: 1, special, ..Self::default() }
    }

    pub fn region(number: usize) -> String {
        format!("region-{number}")
    }

    /// Every page that a complete scan asks for.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        (0..self.regions).flat_map(|region| (0..self.pages).map(move |number| page(region, number)))
    }

    /// The names on this page.
    pub fn names(&self, account: &str, region: &str, page: u32) -> Vec<String> {
        (0..self.secrets).map(|number| format!("{account}/{region}/{page}/{number}")).collect()
    }
}

pub fn page(region: usize, page: u32) -> Step {
    Step::Page { region: Plan::region(region), page }
}

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub number: u64,
    /// How long after the double's start it came, in seconds.
    pub at: f64,
    pub ask: Ask,
}

/// The running double; ends when it is dropped.
pub struct Double {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
    journal: PathBuf,
    _folder: TempDir,
}

struct State {
    plans: Mutex<HashMap<String, Plan>>,
    journal: Mutex<File>,
    began: Instant,
    /// How many were asked so far.
    asked: watch::Sender<u64>,
    /// The answers to requests from this number on are held back.
    held: watch::Sender<u64>,
}

impl Double {
    pub async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let journal = folder.path().join("journal.ndjson");
        let file = OpenOptions::new().create(true).append(true).open(&journal).expect("a journal");
        let state = Arc::new(State {
            plans: Mutex::default(),
            journal: Mutex::new(file),
            began: Instant::now(),
            asked: watch::Sender::new(0),
            held: watch::Sender::new(u64::MAX),
        });
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a free port");
        let address = acceptor.local_addr().remove(0);
        let address = address.as_socket_addr().expect("a TCP address").to_string();
        let routes = Route::new().at("/", post(answer)).data(Arc::clone(&state));
        let serving = tokio::spawn(async move {
            let _ = Server::new_with_acceptor(acceptor).run(routes).await;
        });
        Self { url: format!("http://{address}/"), state, serving, journal, _folder: folder }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// What this account is like from now on.
    pub fn plan(&self, account: &str, plan: Plan) {
        lock(&self.state.plans).insert(account.to_owned(), plan);
    }

    pub fn plan_of(&self, account: &str) -> Plan {
        lock(&self.state.plans).get(account).cloned().unwrap_or_default()
    }

    /// Holds back the answer to this request and all later ones; the first is 0.
    pub fn hold_from(&self, number: u64) {
        self.state.held.send_replace(number);
    }

    pub fn release(&self) {
        self.hold_from(u64::MAX);
    }

    /// How many requests were written down.
    pub fn count(&self) -> u64 {
        *self.state.asked.borrow()
    }

    /// Waits until there were this many requests.
    pub async fn asked(&self, count: u64) {
        let mut asked = self.state.asked.subscribe();
        let enough = asked.wait_for(|asked| *asked >= count);
        tokio::time::timeout(patience(), enough).await.expect("the double is asked").expect("it goes on");
    }

    /// The journal as it is on disk.
    pub fn journal(&self) -> Vec<Entry> {
        let lines = std::fs::read_to_string(&self.journal).expect("the journal is read");
        lines.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[handler]
async fn answer(Json(ask): Json<Ask>, state: Data<&Arc<State>>) -> Json<Reply> {
    let reply = reply(&state, &ask);
    let number = {
        let mut journal = lock(&state.journal);
        let number = *state.asked.borrow();
        let line = serde_json::to_string(&Entry { number, at: state.began.elapsed().as_secs_f64(), ask })
            .expect("an entry is JSON");
        writeln!(journal, "{line}").expect("the journal is written");
        state.asked.send_replace(number + 1);
        number
    };
    let mut held = state.held.subscribe();
    held.wait_for(|from| number < *from).await.expect("the double goes on");
    Json(reply)
}

fn reply(state: &State, ask: &Ask) -> Reply {
    let mut plans = lock(&state.plans);
    let plan = plans.entry(ask.account.clone()).or_default();
    let special = plan.special.iter_mut().find(|special| special.step == ask.step && special.times > 0);
    let order = match special {
        Some(special) => {
            special.times -= 1;
            Some(special.order)
        }
        None => plan.order,
    };
    match &ask.step {
        Step::Scopes => Reply { order, regions: (0..plan.regions).map(Plan::region).collect(), ..Reply::default() },
        Step::Look { .. } => Reply { order, ..Reply::default() },
        Step::Page { region, page } => {
            let next = (page + 1 < plan.pages).then_some(page + 1);
            Reply { order, secrets: plan.names(&ask.account, region, *page), next, ..Reply::default() }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
