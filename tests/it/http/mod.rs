//! The facade as its clients meet it, on each database.

mod assets;
mod browser;
mod control;
mod credentials;
mod document;
mod duplicates;
mod egress;
mod events;
mod hardening;
mod idempotency;
mod jobs;
mod keys;
mod logins;
mod oddities;
mod outage;
mod queues;
mod rate_limits;
mod refusals;
mod restricted;
mod roles;
mod scans;
mod schedules;
mod streams;
mod subscriptions;
mod tokens;
mod users;
