#!/bin/sh
# Brings the configured database to this checkout's schema.
set -eu
cd "$(dirname "$0")/.."
cargo build --workspace --bins
mkdir -p data
exec "$(scripts/target-dir.sh)/debug/keywright-api" migrate
