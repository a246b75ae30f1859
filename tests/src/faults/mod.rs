//! Real processes under faults, and what must be true of them afterwards.
//!
//! * [`trial`]: one run: a database, the double, processes, a seed, and how it is judged
//! * [`cloud`]: the clouds of `keywright-test-worker`, which do what the double tells them to, harm included
//! * [`double`]: the double, with a journal of its own that is written before each reply
//! * [`clients`]: clients of the API, who remember what they were answered
//! * [`history`]: somebody who looks at the job table all the time
//! * [`checker`]: compares all of these with the database; they cannot agree by accident
//! * [`server`]: a PostgreSQL of a test's own, to be killed
//! * [`dice`]: choices that a seed repeats

pub mod checker;
pub mod clients;
pub mod cloud;
pub mod dice;
pub mod double;
pub mod flood;
pub mod history;
pub mod server;
pub mod trial;
