//! The facade as its clients meet it, on each database.

mod assets;
mod refusals;
mod subscriptions;
