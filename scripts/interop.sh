#!/bin/bash
# Generates clients from docs/openapi.json with generators that others wrote; a warning about the document is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${KWTEST_TOOLS:-$PWD/.tools}
venv=$tools/interop
out=$(mktemp -d "${TMPDIR:-/tmp}/keywright-interop.XXXXXX")
trap 'rm -rf "$out"' EXIT

if ! cmp -s scripts/interop.txt "$venv/installed.txt"; then
  echo "installing the generators into $venv (once, 100 MB)" >&2
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/interop.txt
  cp scripts/interop.txt "$venv/installed.txt"
fi
PATH="$venv/bin:$PATH"

echo "== openapi-python-client"
openapi-python-client generate --path docs/openapi.json --output-path "$out/python" --fail-on-warning
"$venv/bin/python" -m compileall -q "$out/python"

for generator in python typescript-fetch; do
  echo "== openapi-generator, $generator"
  openapi-generator-cli generate -i docs/openapi.json -g "$generator" -o "$out/$generator" >"$out/log" 2>&1 ||
    { cat "$out/log"; exit 1; }
  # It fails to name a schema of its own in every document, even one with a single operation.
  if grep -wE 'WARN|ERROR' "$out/log" | grep -v 'ModelUtils - Failed to get the schema name: null'; then
    echo "openapi-generator complains about docs/openapi.json; see above." >&2
    exit 1
  fi
done
echo "both generators take docs/openapi.json without a warning"
