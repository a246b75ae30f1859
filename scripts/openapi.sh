#!/bin/sh
# Writes docs/openapi.json, the document that the API serves; with --check only tells whether the file is that document.
set -eu
cd "$(dirname "$0")/.."
cargo build --workspace --bins
served=$(mktemp "${TMPDIR:-/tmp}/openapi.XXXXXX")
trap 'rm -f "$served"' EXIT
"$(scripts/target-dir.sh)/debug/keywright-api" --print-openapi >"$served"
if [ "${1:-}" != --check ]; then
  cp "$served" docs/openapi.json
elif ! diff -u docs/openapi.json "$served"; then
  echo "docs/openapi.json is not what the API serves; run ./just openapi and look at the difference." >&2
  exit 1
fi
