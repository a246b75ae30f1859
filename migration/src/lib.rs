//! Schema of the Keywright database: one code for SQLite and PostgreSQL, up and down.
