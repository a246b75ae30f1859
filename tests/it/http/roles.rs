//! Who may do what: every operation as every role, in one table that the document is held against.

use keywright_tests::{
    database::TestDatabase,
    http::{Answer, Api, Identified, SCAN},
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

on_both_databases!(every_operation_is_open_to_its_roles_only, the_documented_table_is_this_one);

const EVERYBODY: &[&str] = &["viewer", "auditor", "operator", "admin"];
const OPERATORS: &[&str] = &["operator", "admin"];
const AUDITORS: &[&str] = &["auditor", "admin"];
const ADMINS: &[&str] = &["admin"];
/// An id of nothing.
const NOBODYS: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
const POLICIES: &str = "/api/rotation/policies";
const POLICY: &str = "/api/rotation/policies/{id}";
const MAY_WRITE_POLICIES: &str = "rotation_policies:write";

/// An operation: its id, how to ask for it, the roles that may, and what the others lack. `{id}` is a random id.
struct Row(&'static str, Method, &'static str, Option<Value>, &'static [&'static str], &'static str);

fn table() -> Vec<Row> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let subscription = json!({"provider": "aws", "externalId": "one", "name": "one"});
    let schedule = json!({"name": "one", "cron": "0 0 * * *", "kind": "discovery.scan"});
    let asset = json!({"asset": NOBODYS});
    vec![
        Row("getMe", get.clone(), "/api/auth/me", None, EVERYBODY, "account:self"),
        Row("changePassword", post.clone(), "/api/auth/password", Some(json!({})), EVERYBODY, "account:self"),
        Row("listSessions", get.clone(), "/api/auth/sessions", None, EVERYBODY, "account:self"),
        Row("getSession", get.clone(), "/api/auth/sessions/{id}", None, EVERYBODY, "account:self"),
        Row("deleteSession", delete.clone(), "/api/auth/sessions/{id}", None, EVERYBODY, "account:self"),
        Row("listTokens", get.clone(), "/api/tokens", None, EVERYBODY, "account:self"),
        Row("createToken", post.clone(), "/api/tokens", Some(json!({})), EVERYBODY, "account:self"),
        Row("getToken", get.clone(), "/api/tokens/{id}", None, EVERYBODY, "account:self"),
        Row("deleteToken", delete.clone(), "/api/tokens/{id}", None, EVERYBODY, "account:self"),
        Row("listUsers", get.clone(), "/api/users", None, ADMINS, "users:manage"),
        Row(
            "createUser",
            post.clone(),
            "/api/users",
            Some(json!({"name": "ada", "role": "viewer"})),
            ADMINS,
            "users:manage",
        ),
        Row("getUser", get.clone(), "/api/users/{id}", None, ADMINS, "users:manage"),
        Row("updateUser", patch.clone(), "/api/users/{id}", Some(json!({})), ADMINS, "users:manage"),
        Row("deleteUser", delete.clone(), "/api/users/{id}", None, ADMINS, "users:manage"),
        Row("listSubscriptions", get.clone(), "/api/subscriptions", None, EVERYBODY, "inventory:read"),
        Row("getSubscription", get.clone(), "/api/subscriptions/{id}", None, EVERYBODY, "inventory:read"),
        Row(
            "createSubscription",
            post.clone(),
            "/api/subscriptions",
            Some(subscription),
            ADMINS,
            "subscriptions:write",
        ),
        Row(
            "updateSubscription",
            patch.clone(),
            "/api/subscriptions/{id}",
            Some(json!({})),
            ADMINS,
            "subscriptions:write",
        ),
        Row("deleteSubscription", delete.clone(), "/api/subscriptions/{id}", None, ADMINS, "subscriptions:write"),
        Row("testSubscription", post.clone(), "/api/subscriptions/{id}/test", None, OPERATORS, "jobs:start"),
        Row("listAccounts", post.clone(), "/api/subscriptions/{id}/accounts", None, OPERATORS, "jobs:start"),
        Row("startScan", post.clone(), SCAN, Some(json!({})), OPERATORS, "jobs:start"),
        Row("listScans", get.clone(), "/api/assets/discovery/scans", None, EVERYBODY, "inventory:read"),
        Row("getScan", get.clone(), "/api/assets/discovery/scans/{id}", None, EVERYBODY, "inventory:read"),
        Row(
            "listScanResults",
            get.clone(),
            "/api/assets/discovery/scans/{id}/results",
            None,
            EVERYBODY,
            "inventory:read",
        ),
        Row("getScanStatus", get.clone(), "/api/assets/discovery/scan/{id}/status", None, EVERYBODY, "inventory:read"),
        Row(
            "listScanResultsOld",
            get.clone(),
            "/api/assets/discovery/scan/{id}/results",
            None,
            EVERYBODY,
            "inventory:read",
        ),
        Row("listAssets", get.clone(), "/api/assets/discovery/assets", None, EVERYBODY, "inventory:read"),
        Row("getAsset", get.clone(), "/api/assets/discovery/assets/{id}", None, EVERYBODY, "inventory:read"),
        Row(
            "listAssetVersions",
            get.clone(),
            "/api/assets/discovery/assets/{id}/history",
            None,
            EVERYBODY,
            "inventory:read",
        ),
        Row(
            "listAssetRelations",
            get.clone(),
            "/api/assets/discovery/assets/{id}/relations",
            None,
            EVERYBODY,
            "inventory:read",
        ),
        Row("listCoverage", get.clone(), "/api/assets/discovery/coverage", None, EVERYBODY, "inventory:read"),
        Row("listDuplicates", get.clone(), "/api/assets/discovery/duplicates", None, EVERYBODY, "inventory:read"),
        Row("listVaults", get.clone(), "/api/assets/discovery/vaults", None, EVERYBODY, "inventory:read"),
        Row("listSchedules", get.clone(), "/api/schedules", None, EVERYBODY, "schedules:read"),
        Row("getSchedule", get.clone(), "/api/schedules/{id}", None, EVERYBODY, "schedules:read"),
        Row("createSchedule", post.clone(), "/api/schedules", Some(schedule), OPERATORS, "schedules:write"),
        Row("updateSchedule", patch.clone(), "/api/schedules/{id}", Some(json!({})), OPERATORS, "schedules:write"),
        Row("deleteSchedule", delete.clone(), "/api/schedules/{id}", None, OPERATORS, "schedules:write"),
        Row("listRotationPolicies", get.clone(), POLICIES, None, EVERYBODY, "rotation:read"),
        Row("getRotationPolicy", get.clone(), POLICY, None, EVERYBODY, "rotation:read"),
        Row(
            "createRotationPolicy",
            post.clone(),
            POLICIES,
            Some(json!({"name": "one"})),
            OPERATORS,
            MAY_WRITE_POLICIES,
        ),
        Row("updateRotationPolicy", patch.clone(), POLICY, Some(json!({})), OPERATORS, MAY_WRITE_POLICIES),
        Row("deleteRotationPolicy", delete.clone(), POLICY, None, OPERATORS, MAY_WRITE_POLICIES),
        Row("planRotation", post.clone(), "/api/rotation/plan", Some(asset.clone()), OPERATORS, "rotation:run"),
        Row("getRotationPlan", get.clone(), "/api/rotation/plans/{id}", None, EVERYBODY, "rotation:read"),
        Row("rotate", post.clone(), "/api/rotation/rotate", Some(asset), OPERATORS, "rotation:run"),
        Row("listRotations", get.clone(), "/api/rotation/rotations", None, EVERYBODY, "rotation:read"),
        Row("getRotation", get.clone(), "/api/rotation/rotations/{id}", None, EVERYBODY, "rotation:read"),
        Row("rollBackRotation", post.clone(), "/api/rotation/rotations/{id}/rollback", None, OPERATORS, "rotation:run"),
        Row(
            "resolveRotation",
            post.clone(),
            "/api/rotation/rotations/{id}/resolve",
            Some(json!({"action": "abandon", "reason": "none"})),
            OPERATORS,
            "rotation:run",
        ),
        Row("getSettings", get.clone(), "/api/settings", None, EVERYBODY, "system:read"),
        Row("updateSettings", patch.clone(), "/api/settings", Some(json!({})), ADMINS, "settings:write"),
        Row("getLicense", get.clone(), "/api/system/license", None, EVERYBODY, "system:read"),
        Row("buildEvidence", post.clone(), "/api/evidence", Some(json!({})), AUDITORS, "evidence:build"),
        Row("listEvidence", get.clone(), "/api/evidence", None, AUDITORS, "evidence:read"),
        Row("getEvidence", get.clone(), "/api/evidence/{id}", None, AUDITORS, "evidence:read"),
        Row("downloadEvidence", get.clone(), "/api/evidence/{id}/download", None, AUDITORS, "evidence:read"),
        Row("getEvidenceReport", get.clone(), "/api/compliance/evidence-package", None, AUDITORS, "evidence:build"),
        Row("listApprovals", get.clone(), "/api/approvals", None, EVERYBODY, "approvals:read"),
        Row("getApproval", get.clone(), "/api/approvals/{id}", None, EVERYBODY, "approvals:read"),
        Row("approve", post.clone(), "/api/approvals/{id}/approve", Some(json!({})), OPERATORS, "approvals:decide"),
        Row("deny", post.clone(), "/api/approvals/{id}/deny", Some(json!({})), OPERATORS, "approvals:decide"),
        Row("listAuditEvents", get.clone(), "/api/audit", None, AUDITORS, "audit:read"),
        Row("exportAudit", get.clone(), "/api/audit/export", None, AUDITORS, "audit:read"),
        Row("verifyAudit", get.clone(), "/api/audit/verify", None, AUDITORS, "audit:read"),
        Row("startAuditVerification", post.clone(), "/api/audit/verify", None, AUDITORS, "audit:read"),
        Row("getAuditVerification", get.clone(), "/api/audit/verifications/{id}", None, AUDITORS, "audit:read"),
        Row("getAuditCheckpoint", get.clone(), "/api/audit/checkpoint", None, AUDITORS, "audit:read"),
        Row("getAuditProof", get.clone(), "/api/audit/proof", None, AUDITORS, "audit:read"),
        Row("listJobs", get.clone(), "/api/jobs", None, EVERYBODY, "jobs:read"),
        Row("getJob", get.clone(), "/api/jobs/{id}", None, EVERYBODY, "jobs:read"),
        Row("getQueues", get.clone(), "/api/queues", None, EVERYBODY, "jobs:read"),
        Row("followJob", get.clone(), "/api/jobs/{id}/events", None, EVERYBODY, "jobs:read"),
        Row("followJobs", get.clone(), "/api/events", None, EVERYBODY, "jobs:read"),
        Row("listJobScopes", get, "/api/jobs/{id}/scopes", None, EVERYBODY, "jobs:read"),
        // of somebody else's job more is asked: see the tests of jobs
        Row("cancelJob", post.clone(), "/api/jobs/{id}/cancel", None, EVERYBODY, "jobs:read"),
        Row("pauseJob", post.clone(), "/api/jobs/{id}/pause", None, EVERYBODY, "jobs:read"),
        Row("resumeJob", post.clone(), "/api/jobs/{id}/resume", None, EVERYBODY, "jobs:read"),
        Row("retryJob", post, "/api/jobs/{id}/retry", Some(json!({"scope": "all"})), EVERYBODY, "jobs:read"),
    ]
}

/// What the docs show of the table. `documented` is the served document.
fn markdown(documented: &Value) -> String {
    let by_id: BTreeMap<String, Row> = table().into_iter().map(|row| (row.0.to_owned(), row)).collect();
    let mut text = String::from(
        "# Who may do what\n\nMade from the table that the tests hold every operation and role against \
         (`tests/it/http/roles.rs`); `KWTEST_WRITE_DOCS=1 ./just test the_documented_table` writes it anew.\n\nA restriction to subscriptions narrows what is seen and \
         touched, never what may be done. Whoever started a job may control it; for the jobs of others the permission \
         `jobs:control` is asked for as well. A token has at most the permissions of its user.\n\n\
         | operation | | permission | viewer | auditor | operator | admin |\n| --- | --- | --- | :-: | :-: | :-: | :-: |\n",
    );
    for (path, item) in documented["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let elsewhere = || ELSEWHERE.iter().find(|row| row.0 == id).and_then(|row| row.1);
            let (permission, allowed) = match by_id.get(id) {
                Some(Row(_, _, _, _, allowed, permission)) => (Some(*permission), *allowed),
                None => (elsewhere(), EVERYBODY),
            };
            assert_eq!(operation["x-required-permission"].as_str(), permission, "{id}");
            let permission = permission.map_or_else(|| "none".to_owned(), |name| format!("`{name}`"));
            let marks = EVERYBODY.iter().map(|role| if allowed.contains(role) { " ✓ |" } else { " |" });
            let marks: String = marks.collect();
            writeln!(text, "| `{} {path}` | {id} | {permission} |{marks}", method.to_uppercase()).unwrap();
        }
    }
    text
}

async fn the_documented_table_is_this_one(database: TestDatabase) {
    let api = Api::on(database).await;
    let document = api.nobody().get("/openapi.json").await.ok(200);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ROLES.md");
    let made = markdown(&document);
    if keywright_jobs::setup::config::variable("KWTEST_WRITE_DOCS").is_some() {
        std::fs::write(file, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(file).unwrap() == made,
        "docs/ROLES.md is not this table: run KWTEST_WRITE_DOCS=1 ./just test the_documented_table"
    );
}

/// Open to everybody, or ends the caller's own session, which needs this permission: the tests of identity have them.
const ELSEWHERE: &[(&str, Option<&str>)] = &[
    ("login", None),
    ("refresh", None),
    ("logout", Some("account:self")),
    ("ssoLogin", None),
    ("ssoCallback", None),
    ("deleteOtherSessions", Some("account:self")),
    ("getJwks", None),
    ("listEvidenceKeys", None),
    ("getHealth", None),
    ("getReadiness", None),
    ("getVersion", None),
    ("getMetrics", None),
];

async fn every_operation_is_open_to_its_roles_only(database: TestDatabase) {
    let api = Api::on(database).await;
    let document = api.nobody().get("/openapi.json").await.ok(200);
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let documented: BTreeSet<&str> = items.filter_map(|operation| operation["operationId"].as_str()).collect();
    let rows = table();
    let tested: BTreeSet<&str> = rows.iter().map(|row| row.0).chain(ELSEWHERE.iter().map(|row| row.0)).collect();
    assert_eq!(tested, documented, "each operation has its row");
    for Row(id, method, path, body, allowed, permission) in rows {
        let path = path.replace("{id}", NOBODYS);
        let ask = async |role: Option<&str>| -> Answer {
            let client = role.map_or_else(|| api.nobody(), |role| api.role(role)).with("If-Match", "*");
            let body = body.as_ref().map(|body| ("application/json", body.to_string().into_bytes()));
            client.send(method.clone(), &path, body).await
        };
        ask(None).await.refused(401, "token_missing");
        for role in EVERYBODY {
            let answer = ask(Some(role)).await;
            if allowed.contains(role) {
                assert!(![401, 403].contains(&answer.status), "{id} as {role}: {}", answer.text);
            } else {
                assert_eq!(
                    answer.refused(403, "permission_denied")["requiredPermission"],
                    permission,
                    "{id} as {role}"
                );
                // whatever they send: what is wrong with it is not told to who may not send it
                let client = api.role(role);
                for (path, media, content) in [
                    (path.clone(), "application/json", "{"),
                    (path.clone(), "text/plain", "?"),
                    (format!("{path}?unknown=1"), "application/json", r#"{"unknown": 1}"#),
                    (path.replace(NOBODYS, "no-id"), "application/json", "[]"),
                ] {
                    let answer = client.send(method.clone(), &path, Some((media, content.into()))).await;
                    let problem = answer.refused(403, "permission_denied");
                    assert_eq!(problem["requiredPermission"], permission, "{id} as {role}: {content}");
                }
            }
        }
    }
    // a token gives no more than its maker has
    let more = json!({"name": "more", "role": "admin"});
    api.operator().post("/api/tokens", more).await.refused(403, "permission_denied");
    let own = api.viewer().post("/api/tokens", json!({"name": "same", "role": "viewer"})).await.ok(201);
    assert!(own["token"].is_string());
    let shown = api.admin().get(&format!("/api/tokens/{}", own.id())).await.ok(200);
    assert_eq!(shown["token"], Value::Null);
}
