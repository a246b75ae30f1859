//! The facade as its clients meet it, on each database.

mod approvals;
mod assets;
mod browser;
mod control;
mod document;
mod duplicates;
mod events;
mod idempotency;
mod jobs;
mod keys;
mod licence;
mod logins;
mod oddities;
mod outage;
mod queues;
mod refusals;
mod restricted;
mod roles;
mod scans;
mod schedules;
mod settings;
mod streams;
mod subscriptions;
mod tokens;
mod users;
