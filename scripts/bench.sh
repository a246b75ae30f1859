#!/bin/bash
# Measures on a release build: `./just bench scan`. Prints figures; asserts none. PostgreSQL keeps its durability.
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
cargo build --workspace --bins --examples --release
chmod 711 "$work" # PostgreSQL may run as another user
KWTEST_POSTGRES_URL=$(scripts/postgres.sh start "$work/postgres")
export KWTEST_POSTGRES_URL
"$(scripts/target-dir.sh)/release/keywright-bench" "$@"
