//! Secrets of every kind, each a random text, are looked for wherever the programs leave something: in the database, in the logs
//! at their loudest, in metrics, in answers, and in files. What is no secret travels the same ways and must be found.

use keywright_jobs::setup::{database::Database, ids};
use keywright_tests::{
    database::TestDatabase,
    instance::{READY, aws_environment},
    on_both_databases,
    process::{Process, Signal},
    rig::{ACCESS_KEY_ID, Rig},
};
use reqwest::Method;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};
use std::{fmt::Write as _, path::Path, time::Duration};

on_both_databases!(no_secret_is_left_anywhere);

/// Libraries too, which speak up from warnings on otherwise.
const LOUDEST: &str =
    "trace,sqlx=trace,sea_orm=trace,poem=trace,apalis_core=trace,sea_orm_migration=trace,opentelemetry=trace";
const STOPS_WITHIN: Duration = Duration::from_secs(40);

/// A text that occurs nowhere by accident.
fn random(kind: &str) -> String {
    format!("{kind}{}", ids::new().simple().to_string().to_uppercase().chars().rev().collect::<String>())
}

/// 32 random bytes in base64.
fn master_key() -> String {
    let hex = "0123456789ABCDEF";
    let letters: String = ids::random::<43>().unwrap().iter().map(|byte| &hex[usize::from(byte % 16)..][..1]).collect();
    // the last letter of 43 holds four bits
    format!("{}{}=", &letters[..42], "A")
}

/// The ways in which a text may be written down: as it is, its bytes in hex, in base64 from each of the three offsets.
fn spellings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![secret.to_owned(), hex.to_uppercase(), hex];
    for offset in 0..3 {
        let shifted = [&vec![0; offset][..], secret.as_bytes()].concat();
        let encoded = base64(&shifted);
        // what depends on the neighbours is left out
        let (from, to) = ((offset * 4).div_ceil(3), shifted.len() * 4 / 3);
        all.push(encoded[from..to].to_owned());
    }
    all
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |six: u32| char::from(LETTERS[(six & 63) as usize]);
    let triple =
        |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
    bytes.chunks(3).flat_map(|chunk| [18, 12, 6, 0].map(|shift| letter(triple(chunk) >> shift))).collect()
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    assert_eq!(&base64(b"foobar"), "Zm9vYmFy");
    let found = |text: &str| spellings("correct horse").iter().any(|spelling| text.contains(spelling));
    assert!(found("xx correct horse yy") && found(r"\x636f727265637420686f727365"));
    for (before, after) in [("", ""), ("a", "b"), ("ab", "c"), ("abc", "de")] {
        assert!(found(&base64(format!("{before}correct horse{after}").as_bytes())), "{before}");
    }
    assert!(!found("correct house"));
}

/// Places by name, with what was found in them.
#[derive(Default)]
struct Places(Vec<(String, String)>);

impl Places {
    fn add(&mut self, name: impl Into<String>, bytes: impl AsRef<[u8]>) {
        // what is looked for is ASCII, which stays
        self.0.push((name.into(), String::from_utf8_lossy(bytes.as_ref()).into_owned()));
    }

    fn of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let spellings = spellings(text);
        let holds = move |found: &str| spellings.iter().any(|spelling| found.contains(spelling));
        self.0.iter().filter(move |(_, found)| holds(found)).map(|(name, _)| name.as_str())
    }
}

struct Client {
    http: reqwest::Client,
    url: String,
    places: Places,
}

impl Client {
    /// Sends a request under a request id of the control's, and keeps what a refusal says.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
        control: &str,
    ) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).header("X-Request-Id", control);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("Idempotency-Key", ids::new().to_string()).json(&body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let text = answer.text().await.unwrap();
        if status >= 400 {
            self.places.add(format!("refusal {status} of {path}"), format!("{headers}{text}"));
        }
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// Has moto keep a secret with this value.
async fn keep_value(moto: &str, value: &str) {
    let scope = format!("Credential={ACCESS_KEY_ID}/20261124/us-east-1/secretsmanager/aws4_request");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let made = client
        .post(moto)
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("X-Amz-Target", "secretsmanager.CreateSecret")
        .header("Authorization", format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"))
        .body(json!({"Name": "holds-a-canary", "SecretString": value}).to_string())
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
}

async fn no_secret_is_left_anywhere(test: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let control = random("control");
    let (first, second, wrong) = (random("Password"), random("NewPassword"), random("WrongPassword"));
    let (secret, session, own) = (random("StoredSecret"), random("StoredSession"), random("OwnSecret"));
    let (replaced, value, key) = (random("Replaced"), random("Value"), master_key());
    let (odd, forged) = (random("OddBody"), random("Forged"));
    keep_value(moto.url(), &value).await;

    let shared = [
        ("DATABASE_URL", test.url()),
        ("KEYWRIGHT_MASTER_KEY", key.as_str()),
        ("KEYWRIGHT_LOG", LOUDEST),
        ("KEYWRIGHT_LOG_FORMAT", "json"),
        ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
        ("KEYWRIGHT_WORKER_LISTEN", "127.0.0.1:0"),
        ("KEYWRIGHT_ADMIN_PASSWORD", first.as_str()),
        ("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "0"),
        ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", "0"),
    ];
    let mut aws = aws_environment(moto.url());
    aws[2].1 = own.as_str();
    let mut api = Process::start("keywright-api", &shared);
    let mut worker = Process::start("keywright-worker", &[&shared[..], &aws[..]].concat());
    api.logged(READY).await;
    worker.logged("worker ready").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut client = Client { http, url: address(&api.log(), READY), places: Places::default() };

    let login = |password: &str| Some(json!({"username": "admin", "password": password}));
    let post = Method::POST;
    let (status, _) = client.send(post.clone(), "/api/auth/login", None, login(&wrong), &control).await;
    assert_eq!(status, 401);
    let (status, logged_in) = client.send(post.clone(), "/api/auth/login", None, login(&first), &control).await;
    assert_eq!(status, 200, "{logged_in}");
    let refresh = text(&logged_in["refresh_token"]);
    let body = Some(json!({"refresh_token": refresh}));
    let (status, refreshed) = client.send(post.clone(), "/api/auth/refresh", None, body, &control).await;
    assert_eq!(status, 200, "{refreshed}");
    let access = text(&refreshed["access_token"]);
    let body = Some(json!({"currentPassword": first, "newPassword": second}));
    let (status, changed) = client.send(post.clone(), "/api/auth/password", Some(&access), body, &control).await;
    assert!(status < 300, "{status} {changed}");
    let (status, again) = client.send(post.clone(), "/api/auth/login", None, login(&second), &control).await;
    assert_eq!(status, 200, "{again}");
    let session_token = text(&again["access_token"]);
    let body = Some(json!({"name": "canary", "role": "admin"}));
    let (status, made) = client.send(post.clone(), "/api/tokens", Some(&session_token), body, &control).await;
    assert_eq!(status, 201, "{made}");
    let token = text(&made["token"]);

    let auth = |secret: &str| json!({"mode": "stored", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": secret, "sessionToken": session});
    let subscription = |auth: Value| {
        let regions = ["us-east-1"];
        json!({"provider": "aws", "externalId": "123456789012", "name": control, "regions": regions, "auth": auth})
    };
    for bad in [json!({"mode": "ambient", "secretAccessKey": odd}), json!({"mode": "stored", "secretAccessKey": [odd]})]
    {
        let body = Some(subscription(bad));
        assert_eq!(client.send(post.clone(), "/api/subscriptions", Some(&token), body, &control).await.0, 400);
    }
    assert_eq!(client.send(Method::GET, "/api/auth/me", Some(&forged), None, &control).await.0, 401);
    let body = Some(subscription(auth(&replaced)));
    let (status, made) = client.send(post.clone(), "/api/subscriptions", Some(&token), body, &control).await;
    assert_eq!(status, 201, "{made}");
    let path = format!("/api/subscriptions/{}", text(&made["id"]));
    let body = Some(json!({"auth": auth(&secret)}));
    assert_eq!(client.send(Method::PATCH, &path, Some(&token), body, &control).await.0, 200);
    let scan = "/api/assets/discovery/scan";
    let (status, job) = client.send(post.clone(), scan, Some(&token), Some(json!({})), &control).await;
    assert_eq!(status, 202, "{job}");
    let path = format!("/api/jobs/{}?wait=60", text(&job["id"]));
    let (_, job) = client.send(Method::GET, &path, Some(&token), None, &control).await;
    assert_eq!((&job["state"], &job["counts"]["found"]), (&json!("succeeded"), &json!(1)), "{job}");
    client.places.add("the job", job.to_string());

    let metrics = address(&worker.log(), "the worker's own HTTP face is open");
    for (name, url) in [("metrics of the API", client.url.clone()), ("metrics of the worker", metrics)] {
        let text = client.http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(text.contains("keywright_build_info"), "{text}");
        client.places.add(name, text);
    }
    // as it lies there while the programs run, and after they have ended
    database(&mut client.places, &test.database, "running").await;
    for process in [&mut api, &mut worker] {
        process.signal(Signal::Term);
        process.ended(STOPS_WITHIN).await;
    }
    database(&mut client.places, &test.database, "ended").await;
    let mut places = client.places;
    places.add("log of the API", api.log());
    places.add("log of the worker", worker.log());
    for process in [&api, &worker] {
        files(&mut places, process.folder());
    }

    let kinds = [
        ("first password", first.as_str()),
        ("new password", &second),
        ("wrong password", &wrong),
        ("refresh token", &refresh),
        ("access token", &access),
        ("access token of the session", &session_token),
        ("API token", &token),
        ("stored secret", &secret),
        ("stored secret that was replaced", &replaced),
        ("stored session token", &session),
        ("the worker's own secret", &own),
        ("a secret's value", &value),
        ("master key", &key),
        ("a secret in a refused body", &odd),
        ("a forged token", &forged),
    ];
    let mut leaks = String::new();
    for (kind, secret) in kinds {
        for place in places.of(secret) {
            let _ = writeln!(leaks, "{kind}: in {place}");
        }
    }
    assert!(leaks.is_empty(), "\n{leaks}");

    // what is no secret is found where secrets were looked for
    let found: Vec<&str> = places.of(&control).collect();
    for place in ["database", "log of the API", "log of the worker", "refusal 400", "refusal 401"] {
        assert!(found.iter().any(|name| name.contains(place)), "the control is not in {place}: {found:?}");
    }
    // the API has nothing to say that is below debug
    assert!(api.log().contains("\"level\":\"DEBUG\"") && worker.log().contains("\"level\":\"TRACE\""));
    let cores: Vec<_> = places.0.iter().filter(|(name, _)| name.contains("/core")).map(|(name, _)| name).collect();
    assert!(cores.is_empty(), "{cores:?}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

/// The address in the line of a log that has this message.
fn address(log: &str, message: &str) -> String {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line =
        lines.into_iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no {message} in {log}"));
    format!("http://{}", text(&line["address"]).trim_start_matches("socket://"))
}

/// Every byte of a SQLite database and of what lies beside it; every row of a PostgreSQL one.
async fn database(places: &mut Places, database: &Database, when: &str) {
    if database.backend() == DbBackend::Sqlite {
        let file = database.url().trim_start_matches("sqlite://").to_owned();
        let (folder, mut read) = (Path::new(&file).parent().unwrap(), 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            places.add(format!("database {when} {}", path.display()), std::fs::read(&path).unwrap());
            read += 1;
        }
        // the last program to end takes the write-ahead log away
        assert!(read >= if when == "running" { 2 } else { 1 }, "{when}: {read} files in {}", folder.display());
        return;
    }
    let all = async |sql: String| {
        let rows = database.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        rows.iter().map(|row| row.try_get::<String>("", "text").unwrap()).collect::<Vec<_>>()
    };
    let tables = "SELECT table_name::text AS text FROM information_schema.tables WHERE table_schema = 'public'";
    let tables = all(tables.to_owned()).await;
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let rows = all(format!("SELECT t::text AS text FROM {table} t")).await;
        places.add(format!("database {when} {table}"), rows.join("\n"));
    }
}

fn files(places: &mut Places, folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(places, &path);
        } else {
            places.add(format!("file {}", path.display()), std::fs::read(&path).unwrap());
        }
    }
}
