#!/bin/bash
# Measures on a release build: `./just bench scan`, `./just bench engine`. Prints figures; asserts none. PostgreSQL keeps its durability.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/keywright-bench.XXXXXX")

finish() {
  trap - EXIT INT TERM
  scripts/postgres.sh stop "$work/postgres"
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

KWTEST_VENV=$(scripts/venv.sh)
export KWTEST_VENV
target=$(scripts/target-dir.sh)
if [ "${1:-}" = engine ]; then
  # with the job that does nothing, which no other build offers
  cargo build --workspace --bins --release --features keywright-jobs/bench
  CARGO_TARGET_DIR="$target/peer" cargo build --release --locked --manifest-path tests/peer/Cargo.toml
else
  cargo build --workspace --bins --examples --release
fi
chmod 711 "$work" # PostgreSQL may run as another user
KWTEST_POSTGRES_URL=$(scripts/postgres.sh start "$work/postgres")
export KWTEST_POSTGRES_URL
"$target/release/keywright-bench" "$@"
