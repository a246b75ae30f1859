//! How lists of assets are read: along an index, and no more than a few times the rows of the page.

use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::{asset, types::AssetType, types::ProviderKind};
use keywright_jobs::setup::ids;
use keywright_tests::{
    database::TestDatabase,
    http::{ASSETS, Api},
    on_both_databases,
};
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbBackend, EntityTrait, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases!(documented_lists_read_little_more_than_their_page);

const ASSETS_THERE: i64 = 20_000;
const PAGE: u64 = 50;

fn row(number: i64, subscriptions: &[Uuid], now: DateTime<Utc>) -> asset::ActiveModel {
    let dated = |step: i64, days: i64| (number % 3 != step).then(|| now + TimeDelta::days(number * 7919 % 1000 - days));
    let types = [AssetType::Secret, AssetType::Key, AssetType::Certificate, AssetType::Credential];
    let of = |count: i64| usize::try_from(number % count).unwrap();
    // neither is in the order of the rows
    let name = format!("name-{:05}", number * 7919 % ASSETS_THERE);
    asset::ActiveModel {
        id: Set(ids::new()),
        subscription_id: Set(subscriptions[of(4)]),
        provider: Set(ProviderKind::Aws),
        asset_type: Set(types[of(4)]),
        kind: Set("memory.secret".to_owned()),
        vault_id: Set(Uuid::from_u128(u128::try_from(number % 50).unwrap())),
        vault: Set(format!("v{}", number % 50)),
        region: Set(format!("r{}", number % 5)),
        name_key: Set(name.clone()),
        name: Set(name),
        external_id: Set(format!("memory:{number}")),
        enabled: Set(None),
        created_at: Set(dated(0, 1000)),
        expires_at: Set(dated(1, 100)),
        not_before: Set(None),
        last_rotated_at: Set(dated(2, 1000)),
        last_accessed_at: Set(None),
        last_changed_at: Set(dated(0, 1200)),
        first_seen_at: Set(now + TimeDelta::seconds(number * 7907 % ASSETS_THERE)),
        last_seen_at: Set(now),
        removed_at: Set((number % 20 == 0).then_some(now)),
        stale: Set(false),
        owner: Set((number % 2 == 0).then(|| format!("o{}", number % 16))),
        environment: Set(None),
        tags: Set(json!({})),
        certificate: Set(None),
        attributes: Set(json!({})),
        fingerprint: Set(None),
        content_hash: Set(String::new()),
        version: Set(1),
        last_scan_id: Set(Uuid::nil()),
        listed_hash: Set(None),
        details: Set(None),
        detailed_at: Set(None),
    }
}

async fn documented_lists_read_little_more_than_their_page(database: TestDatabase) {
    let api = Api::on(database).await;
    let mut subscriptions = Vec::new();
    for account in ["a", "b", "c", "d"] {
        subscriptions.push(api.subscribe(account).await.parse::<Uuid>().unwrap());
    }
    let database = api.app.another().await;
    let write = database.begin().await.unwrap();
    for batch in 0..ASSETS_THERE / 500 {
        let rows = (batch * 500..(batch + 1) * 500).map(|number| row(number, &subscriptions, api.now()));
        asset::Entity::insert_many(rows).exec_without_returning(&*write).await.unwrap();
    }
    write.commit().await.unwrap();
    let postgres = database.backend() == DbBackend::Postgres;
    if postgres {
        database.reader().execute_unprepared("ANALYZE asset").await.unwrap();
    }
    let mut lists = Vec::new();
    for sort in ["firstSeenAt", "createdAt", "expiresAt", "lastRotatedAt", "lastChangedAt", "name", "vault"] {
        lists.extend([format!("sort={sort}"), format!("sort=-{sort}")]);
    }
    let subscription = format!("subscription={}", subscriptions[1]);
    for filter in ["type=key", "region=r1", "vault=v1", "owner=o2", &subscription] {
        lists.push(filter.to_owned());
    }
    for filter in ["type=key", &subscription] {
        lists.extend(["name", "-name", "expiresAt", "-expiresAt"].map(|sort| format!("{filter}&sort={sort}")));
    }
    let soon = (api.now() + TimeDelta::days(200)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    for filter in [
        "status=expired",
        "status=unknown",
        "status=critical,warning",
        "status=healthy",
        &format!("expiresBefore={soon}"),
        &format!("expiresAfter={soon}"),
    ] {
        lists.extend([format!("{filter}&sort=expiresAt"), format!("{filter}&sort=-expiresAt")]);
    }
    for list in lists {
        let first = read(&api, &database, postgres, &list).await;
        let next = first["meta"]["nextCursor"].as_str().unwrap_or_else(|| panic!("{list} has one page only"));
        read(&api, &database, postgres, &format!("{list}&cursor={next}")).await;
    }
}

/// The page, of which every statement on assets was read as promised.
async fn read(api: &Api, database: &keywright_jobs::setup::database::Database, postgres: bool, list: &str) -> Value {
    api.statements.take();
    let page = api.viewer().get(&format!("{ASSETS}?limit={PAGE}&{list}")).await.ok(200);
    let asked = api.statements.take();
    let asked: Vec<&String> = asked.iter().filter(|text| text.contains("FROM \"asset\"")).collect();
    assert!(!asked.is_empty(), "{list} asks for no assets");
    for text in asked {
        if postgres {
            let explain = Statement::from_string(DbBackend::Postgres, format!("EXPLAIN (ANALYZE, FORMAT JSON) {text}"));
            let plan = database.reader().query_one_raw(explain).await.unwrap().unwrap();
            let plan: Value = plan.try_get("", "QUERY PLAN").unwrap();
            let rows = rows_read(&plan[0]["Plan"]);
            assert!(rows <= 10.0 * PAGE as f64, "{list} reads {rows} rows: {text}\n{plan:#}");
        } else {
            let explain = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {text}"));
            let steps = database.reader().query_all_raw(explain).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.try_get("", "detail").unwrap()).collect();
            let walks = steps.iter().filter(|step| step.contains(" asset"));
            assert!(walks.clone().count() > 0, "{list}: {steps:?}");
            assert!(walks.clone().all(|step| step.contains("USING INDEX")), "{list}: {steps:?}\n{text}");
            let sorts = steps.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY"));
            assert!(!sorts, "{list} sorts more than it shows: {steps:?}\n{text}");
        }
    }
    page
}

/// What the scans of a plan have looked at.
fn rows_read(plan: &Value) -> f64 {
    let figure = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let own = if plan["Relation Name"] == "asset" {
        (figure("Actual Rows") + figure("Rows Removed by Filter")) * figure("Actual Loops")
    } else {
        0.0
    };
    let under = plan["Plans"].as_array().into_iter().flatten().map(rows_read).sum::<f64>();
    own + under
}
