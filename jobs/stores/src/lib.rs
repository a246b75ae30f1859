//! What the instance itself keeps outside its database and machine. Beside the worker's providers the only code that uses a
//! cloud's SDK, and it never sees what the clouds hold: it reaches nothing but what the operator's configuration names.

pub mod kms;
pub mod objects;
