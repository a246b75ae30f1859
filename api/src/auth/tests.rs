//! Identity over HTTP: each test a server of its own.

mod api_tokens;
mod credentials;
mod sessions;
mod start;
