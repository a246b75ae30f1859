//! The facade as its clients meet it, on each database.

mod assets;
mod jobs;
mod oddities;
mod refusals;
mod scans;
mod subscriptions;
