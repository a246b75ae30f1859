# `./just` lists these; each does its work in scripts/.

set positional-arguments

[private]
default:
  @just --list --unsorted

# Brings up an instance under ./data, scans this machine over HTTP and prints what it found
up *args:
  @scripts/up.sh "$@"

# Runs every test on SQLite and PostgreSQL; arguments go to cargo test
test *args:
  @scripts/test.sh "$@"

# Tries faults over and over for so many minutes, with new seeds and faults that last as long as in life
soak minutes="30":
  @scripts/soak.sh "$1"

# Runs the API and a worker with debug logs
dev:
  @scripts/run.sh dev

# Runs the API
api:
  @scripts/run.sh api

# Runs workers
worker count="1":
  @scripts/run.sh worker "$1"

# Starts a PostgreSQL for development and prints how to use it; `stop` ends it
db-postgres action="start":
  @scripts/db-postgres.sh "$1"

# Migrates the configured database
migrate:
  @scripts/migrate.sh

# Checks format, lints, documentation and dependencies
lint:
  cargo fmt --all --check
  cargo clippy --workspace --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
  scripts/cargo-deny.sh check bans licenses sources

# Formats the sources
fmt:
  cargo fmt --all

# Writes docs/openapi.json from the code
openapi:
  @scripts/openapi.sh

# Measures, on a release build
bench *args:
  @scripts/bench.sh "$@"

# Holds the served document and an instance against client generators and testers that others wrote
interop:
  @scripts/interop.sh

# Starts or ends the cloud emulators, to try a scan by hand
rig action:
  @scripts/rig.sh "$1"

# Looks the dependencies up in the advisory database, which needs the network
advisories:
  @scripts/cargo-deny.sh check advisories

# What a change must pass
ci:
  @.ci/run
