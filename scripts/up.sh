#!/bin/sh
# Builds everything and hands over to the driver, which brings an instance up and scans this machine.
set -eu
cd "$(dirname "$0")/.."
# The whole workspace at once: building one package alone would select other features and build its dependencies anew.
cargo build --workspace --bins
exec "$(scripts/target-dir.sh)/debug/keywright-up" "$@"
