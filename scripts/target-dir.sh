#!/bin/sh
# Prints where cargo puts what it builds; CARGO_TARGET_DIR and cargo's own configuration decide.
set -eu
cd "$(dirname "$0")/.."
cargo metadata --format-version 1 --no-deps --offline | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
