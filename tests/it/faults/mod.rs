//! Real processes under faults. Each test has a database of its own, prints the seed of its choices, and ends with a time in
//! which nothing goes wrong and every job must end: `keywright_tests::faults` says how it is judged.

mod api;
mod database;
mod freeze;
mod load;
mod poison;
mod scan;
mod storm;
