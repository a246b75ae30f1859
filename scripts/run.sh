#!/bin/bash
# Runs what was built from this checkout in the foreground; Ctrl-C ends it.
#
#   scripts/run.sh api            the API on its configured address, after migrating
#   scripts/run.sh worker [N]     N workers (one)
#   scripts/run.sh dev            both, with plain cookies for http and Keywright's own debug log
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --workspace --bins
bin=$(scripts/target-dir.sh)/debug
mkdir -p data
running=()

finish() {
  trap - EXIT INT TERM
  for pid in ${running[@]+"${running[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
  wait
}

workers() {
  for ((i = 0; i < $1; i++)); do
    "$bin/keywright-worker" &
    running+=($!)
  done
}

case "${1:-}" in
  api) exec "$bin/keywright-api" --migrate ;;
  worker)
    trap finish EXIT INT TERM
    workers "${2:-1}"
    wait
    ;;
  dev)
    export KEYWRIGHT_COOKIE_SECURE=${KEYWRIGHT_COOKIE_SECURE:-false}
    export KEYWRIGHT_LOG=${KEYWRIGHT_LOG:-info,keywright_api=debug,keywright_jobs=debug,keywright_worker=debug}
    trap finish EXIT INT TERM
    "$bin/keywright-api" --migrate &
    api=$!
    running+=("$api")
    workers 1
    wait "$api"
    ;;
  *)
    echo "usage: scripts/run.sh api | worker [N] | dev" >&2
    exit 2
    ;;
esac
