//! Real processes under faults. Each test has a database of its own, prints the seed of its choices, and ends with a time in
//! which nothing goes wrong and every job must end: `keywright_tests::faults` says how it is judged.

mod api;
mod checker;
mod clocks;
mod database;
mod disk;
mod freeze;
mod load;
mod logins;
mod poison;
mod scan;
mod sequencer;
mod storm;

use keywright_entities::{clock, job};
use keywright_jobs::setup::database::Database;
use sea_orm::{EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr};

/// How many leases end before or after now.
async fn leases(db: &Database, order: &str) -> Option<u64> {
    let now = clock::sql(db.backend(), 0);
    let leases = job::Entity::find().filter(Expr::cust(format!("lease_until {order} {now}")));
    leases.count(db.reader()).await.ok()
}
