#!/bin/sh
# Measures on a release build: `./just bench scan`. Prints figures; asserts none.
set -eu
cd "$(dirname "$0")/.."
KWTEST_VENV=$(scripts/venv.sh)
export KWTEST_VENV
cargo build --workspace --bins --release
exec "$(scripts/target-dir.sh)/release/keywright-bench" "$@"
