#!/bin/sh
# cargo-deny at the version that this checkout was checked with; built into .tools (or KWTEST_TOOLS) once.
set -eu
version=0.20.2
cd "$(dirname "$0")/.."
tools=${KWTEST_TOOLS:-$PWD/.tools}

if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  echo "building cargo-deny $version into $tools (once, about three minutes)" >&2
  CARGO_TARGET_DIR="$tools/build" cargo install cargo-deny --version "$version" --locked --quiet --root "$tools"
  rm -rf "$tools/build"
fi
exec "$tools/bin/cargo-deny" "$@"
