//! What may be named where, held by reading the sources and the manifests.
//!
//! Every rule is a pure function over (path, text), and [`samples`] proves that each one can fail.

use std::{fs, path::Path};
use toml::{Table, Value};

/// Something that a source names.
enum Name {
    /// A crate; a trailing `_` means every crate whose name begins so.
    Crate(&'static str),
    /// A piece of code that stands alone, such as `Utc::now`.
    Code(&'static str),
}

use Name::{Code, Crate};

/// `names` must not occur in files that begin with one of `within`, save those that begin with one of `except`.
struct Rule {
    name: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    /// Whether the modules `tests` are bound too.
    tests_too: bool,
    names: &'static [Name],
}

/// Where product code lives; `tests/` may do what it likes save reaching around the architecture.
const PRODUCT: &[&str] =
    &["api/src/", "entities/src/", "jobs/src/", "jobs/proof/", "jobs/stores/", "migration/src/", "worker/src/"];

const RULES: &[Rule] = &[
    Rule {
        name: "a cloud SDK is used only by the providers and the stores",
        within: &[""],
        except: &["worker/src/providers/", "jobs/stores/"],
        tests_too: true,
        names: &[
            Crate("aws_config"),
            Crate("aws_credential_types"),
            Crate("aws_sdk_"),
            Crate("aws_sigv4"),
            Crate("aws_smithy_"),
            Crate("aws_types"),
            Crate("azure_"),
            Crate("google_cloud_"),
        ],
    },
    Rule {
        name: "apalis is known only to the queue and the runner",
        within: &[""],
        except: &["jobs/src/queue/", "jobs/src/queue.rs", "worker/src/runner/", "worker/src/runner.rs"],
        tests_too: true,
        names: &[Crate("apalis"), Crate("apalis_core")],
    },
    Rule {
        name: "the domain and the proofs decide by their arguments alone",
        within: &["jobs/src/domain/", "jobs/proof/src/"],
        except: &["jobs/proof/src/bin/"],
        tests_too: false,
        names: &[
            Code("async"),
            Code(".await"),
            Code("Utc::now"),
            Code("SystemTime"),
            Code("Instant::now"),
            Code("std::env"),
            Code("std::fs"),
            Code("std::net"),
            Code("std::process"),
            Code("std::thread"),
            Code("Uuid::new_v4"),
            Code("Uuid::now_v7"),
            Crate("rand"),
            Crate("reqwest"),
            Crate("sea_orm"),
            Crate("sqlx"),
            Crate("tokio"),
        ],
    },
    Rule {
        name: "a provider does not know the database",
        within: &["worker/src/providers/"],
        except: &[],
        tests_too: true,
        names: &[Crate("sea_orm"), Crate("sqlx"), Crate("keywright_migration")],
    },
    Rule {
        name: "the migration spells the schema out, whatever the entities become",
        within: &["migration/"],
        except: &[],
        tests_too: true,
        names: &[Crate("keywright_entities"), Crate("keywright_jobs")],
    },
    Rule {
        name: "the shapes on the wire are the API's own",
        within: &["entities/", "jobs/", "migration/"],
        except: &[],
        tests_too: true,
        names: &[Crate("poem"), Crate("poem_openapi")],
    },
    Rule {
        name: "the API does not know the worker",
        within: &["api/"],
        except: &[],
        tests_too: true,
        names: &[Crate("keywright_worker")],
    },
    Rule {
        name: "the worker does not know the API",
        within: &["worker/"],
        except: &[],
        tests_too: true,
        names: &[Crate("keywright_api")],
    },
    Rule {
        name: "only the configuration reads the environment",
        within: PRODUCT,
        except: &["jobs/src/setup/config.rs", "jobs/src/setup/config/"],
        tests_too: false,
        names: &[Code("env::var"), Code("env::var_os"), Code("env::vars"), Code("env::vars_os")],
    },
    Rule {
        name: "clocks, randomness and ids come from setup",
        within: PRODUCT,
        except: &["jobs/src/setup/"],
        tests_too: false,
        names: &[
            Code("Utc::now"),
            Code("Local::now"),
            Code("SystemTime::now"),
            Code("Uuid::new_v4"),
            Code("Uuid::now_v7"),
            Code("rand::rng"),
            Code("rand::random"),
        ],
    },
];

const CLOUDS: &[&str] = &["aws", "azure", "gcp", "local"];
const SIBLINGS: &str = "no cloud imports another one";
const LENGTH: &str = "a file has at most 400 lines, or says at its top why not";
const DIRECTION: &str = "crates depend in one direction";
const LINTS: &str = "every crate takes the workspace's lints";
const SDKS: &str = "only the crates that touch clouds depend on their SDKs";

/// Our crates on which each of our crates may stand.
const MAY_USE: &[(&str, &[&str])] = &[
    ("keywright-fuzz", &["keywright-api"]),
    ("keywright-migration", &[]),
    ("keywright-entities", &[]),
    ("keywright-proof", &[]),
    ("keywright-stores", &[]),
    ("keywright-jobs", &["keywright-entities", "keywright-migration", "keywright-proof", "keywright-stores"]),
    ("keywright-api", &["keywright-entities", "keywright-jobs"]),
    ("keywright-worker", &["keywright-entities", "keywright-jobs"]),
    (
        "keywright-tests",
        &[
            "keywright-api",
            "keywright-entities",
            "keywright-jobs",
            "keywright-migration",
            "keywright-proof",
            "keywright-stores",
            "keywright-worker",
        ],
    ),
];

/// The names of the rules that a file breaks, each with what breaks it.
fn broken(path: &str, text: &str) -> Vec<(&'static str, String)> {
    if path.ends_with("Cargo.toml") {
        return broken_by_manifest(text);
    }
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    let (all, product) = (without_comments(text), without_comments(without_tests(path, text)));
    let mut found = Vec::new();
    for rule in RULES.iter().filter(|rule| begins(rule.within) && !begins(rule.except)) {
        let code = if rule.tests_too { &all } else { &product };
        let named = rule.names.iter().filter(|name| name.occurs_in(code));
        found.extend(named.map(|(Crate(word) | Code(word))| (rule.name, format!("names `{word}`"))));
    }
    found.extend(foreign_cloud(path, &all).map(|cloud| (SIBLINGS, format!("names the provider {cloud}"))));
    let lines = text.lines().count();
    if lines > 400 && !text.lines().take(10).any(|line| line.starts_with("//! Long because ")) {
        found.push((LENGTH, format!("has {lines} lines and no line `//! Long because …` at its top")));
    }
    found
}

impl Name {
    fn occurs_in(&self, code: &str) -> bool {
        let (Crate(word) | Code(word)) = self;
        code.match_indices(word).any(|(at, _)| {
            let (before, after) = (&code[..at], &code[at + word.len()..]);
            match self {
                // The root of a path, neither a field nor a module of something else.
                Crate(_) => {
                    let rest = if word.ends_with('_') { after.trim_start_matches(is_word) } else { after };
                    let root = !before.ends_with(is_word) && !before.ends_with("::") && !before.ends_with('.');
                    root && (rest.starts_with("::") || before.ends_with("use ") && !rest.starts_with(is_word))
                }
                Code(_) => (!before.ends_with(is_word) || word.starts_with('.')) && !after.starts_with(is_word),
            }
        })
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// A cloud other than the one in whose folder the file lies.
fn foreign_cloud(path: &str, code: &str) -> Option<&'static str> {
    let inside = path.strip_prefix("worker/src/providers/")?;
    let own =
        CLOUDS.iter().find(|cloud| inside.strip_prefix(**cloud).is_some_and(|rest| rest.starts_with(['/', '.'])))?;
    let named = |cloud: &str| {
        let paths = [format!("providers::{cloud}"), format!("super::{cloud}")];
        // `use crate::providers::{http, gcp::auth};`
        let grouped = code.split("providers::{").skip(1).filter_map(|rest| rest.split(';').next());
        paths.iter().any(|path| code.match_indices(path).any(|(at, _)| !code[at + path.len()..].starts_with(is_word)))
            || grouped.flat_map(|group| group.split(|c| !is_word(c))).any(|word| word == cloud)
    };
    CLOUDS.iter().copied().find(|cloud| cloud != own && named(cloud))
}

/// Enough for our sources, whose only `//` within a text is that of an address.
fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..comment.map_or(line.len(), |(at, _)| at)].to_owned()
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn without_tests<'a>(path: &str, text: &'a str) -> &'a str {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn broken_by_manifest(text: &str) -> Vec<(&'static str, String)> {
    let manifest: Table = text.parse().unwrap();
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) else {
        return Vec::new(); // the workspace's own
    };
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let dependencies = tables.iter().filter_map(|table| manifest.get(*table)?.as_table()).flat_map(Table::keys);
    let mut found = Vec::new();
    let may_use = MAY_USE.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, may_use)| may_use);
    for dependency in dependencies {
        if dependency.starts_with("keywright-") && !may_use.contains(&dependency.as_str()) {
            found.push((DIRECTION, format!("{name} depends on {dependency}")));
        }
        let sdk = ["aws-", "azure_", "google-cloud-"].iter().any(|prefix| dependency.starts_with(prefix));
        if sdk && dependency != "aws-lc-rs" && !["keywright-worker", "keywright-stores"].contains(&name) {
            found.push((SDKS, format!("{name} depends on {dependency}")));
        }
    }
    if manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) != Some(true) {
        found.push((LINTS, format!("{name} has no `[lints] workspace = true`")));
    }
    found
}

/// Hands every source and manifest of the workspace to `visit`, with its path from the root.
fn each_file(directory: &Path, prefix: &str, visit: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && !["target", "data"].contains(&path.as_str()) {
                each_file(&entry.path(), &format!("{path}/"), visit);
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            visit(&path, &fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[test]
fn the_sources_keep_every_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut files, mut problems) = (0, Vec::new());
    each_file(root, "", &mut |path, text| {
        files += 1;
        // This file spells out what is forbidden.
        if path != "tests/it/architecture.rs" {
            problems.extend(broken(path, text).into_iter().map(|(rule, what)| format!("{path} {what}: {rule}")));
        }
    });
    assert!(files > 20, "only {files} files were read");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// A file that must be found out, and the rule that it breaks.
fn samples() -> Vec<(&'static str, &'static str, String)> {
    let sdk = "a cloud SDK is used only by the providers and the stores";
    let pure = "the domain and the proofs decide by their arguments alone";
    let env = "only the configuration reads the environment";
    let setup = "clocks, randomness and ids come from setup";
    let apalis = "apalis is known only to the queue and the runner";
    let manifest = |name: &str, dependency: &str| {
        format!(
            "[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n[dependencies]\n{dependency}.workspace = true\n"
        )
    };
    let text = str::to_owned;
    vec![
        (sdk, "jobs/src/kinds/scan.rs", text("use aws_sdk_acm::Client;")),
        (sdk, "api/src/routes/x.rs", text("let c = azure_identity::new();")),
        (sdk, "tests/it/main.rs", text("use google_cloud_auth as auth;")),
        (apalis, "worker/src/main.rs", text("use apalis::prelude::*;")),
        (apalis, "jobs/src/kinds/scan.rs", text("fn f(t: apalis_core::task::Task) {}")),
        (pure, "jobs/src/domain/rotation.rs", text("pub async fn plan() {}")),
        (pure, "jobs/src/domain/rotation.rs", text("use std::{time::SystemTime};")),
        (pure, "jobs/src/domain/rotation.rs", text("fn f() { read().await }")),
        (pure, "jobs/src/domain/rotation.rs", text("use sea_orm::DbErr;")),
        (pure, "jobs/proof/src/chain.rs", text("use tokio::fs;")),
        ("a provider does not know the database", "worker/src/providers/aws/acm.rs", text("use sea_orm::DbErr;")),
        (
            "the migration spells the schema out, whatever the entities become",
            "migration/src/lib.rs",
            text("use keywright_entities::job;"),
        ),
        ("the shapes on the wire are the API's own", "entities/src/job.rs", text("#[derive(poem_openapi::Object)]")),
        ("the API does not know the worker", "api/src/lib.rs", text("use keywright_worker::runner;")),
        ("the worker does not know the API", "worker/src/lib.rs", text("use keywright_api::error;")),
        (env, "api/src/main.rs", text("let x = std::env::var(\"X\");")),
        (env, "worker/src/main.rs", text("use std::env;\nlet x = env::vars_os();")),
        (setup, "worker/src/runner.rs", text("let now = chrono::Utc::now();")),
        (setup, "api/src/auth/token.rs", text("rand::rng().fill(&mut bytes);")),
        (SIBLINGS, "worker/src/providers/aws/acm.rs", text("use crate::providers::gcp::auth;")),
        (SIBLINGS, "worker/src/providers/aws/acm.rs", text("use super::super::local;")),
        (SIBLINGS, "worker/src/providers/aws/acm.rs", text("use crate::providers::{http, azure::auth};")),
        (LENGTH, "jobs/src/kinds/scan.rs", "\n".repeat(401)),
        (DIRECTION, "entities/Cargo.toml", manifest("keywright-entities", "keywright-jobs")),
        (DIRECTION, "api/Cargo.toml", manifest("keywright-api", "keywright-worker")),
        (DIRECTION, "new/Cargo.toml", manifest("keywright-new", "keywright-jobs")),
        (SDKS, "jobs/Cargo.toml", manifest("keywright-jobs", "aws-sdk-kms")),
        (LINTS, "new/Cargo.toml", text("[package]\nname = \"keywright-new\"\n")),
    ]
}

#[test]
fn every_rule_finds_its_samples_out() {
    for (rule, path, text) in samples() {
        let found: Vec<_> = broken(path, &text).into_iter().map(|(rule, _)| rule).collect();
        assert!(found.contains(&rule), "{path}: {text:?} passed `{rule}`: {found:?}");
    }
    let tried: Vec<_> = samples().into_iter().map(|(rule, ..)| rule).collect();
    let others = [SIBLINGS, LENGTH, DIRECTION, LINTS, SDKS];
    for rule in RULES.iter().map(|rule| rule.name).chain(others) {
        assert!(tried.contains(&rule), "no sample shows that `{rule}` can fail");
    }
}

#[test]
fn what_only_looks_like_a_breach_passes() {
    let long = format!("//! Data.\n//!\n//! Long because it is one table.\n{}", "\n".repeat(401));
    let innocent = [
        ("jobs/src/setup/config.rs", "pub azure_vault_endpoint: Option<Url>,"),
        ("jobs/src/setup/config/sources.rs", "std::env::vars_os()"),
        ("jobs/src/domain/rules.rs", "// asked with .await elsewhere, at http://tokio::rs\nfn asynchronous() {}"),
        ("jobs/src/domain/rules.rs", "fn f() {}\n#[cfg(test)]\nmod tests { async fn t() {} }"),
        ("jobs/src/setup/seal.rs", "use aws_lc_rs::aead;\nlet now = Utc::now();"),
        (
            "worker/src/providers/aws/acm.rs",
            "use aws_sdk_acm::Client;\nuse super::super::local_names;\nuse crate::providers::{http};",
        ),
        ("worker/src/providers/mod.rs", "ProviderKind::Aws => crate::providers::aws::connect()"),
        ("worker/src/runner.rs", "use apalis::prelude::*;"),
        ("tests/it/support.rs", "std::env::var(\"KWTEST_POSTGRES_URL\")"),
        ("entities/src/job.rs", &long),
        ("Cargo.toml", "[workspace]"),
    ];
    for (path, text) in innocent {
        assert_eq!(broken(path, text), [], "{path}");
    }
}
