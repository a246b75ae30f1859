#!/bin/bash
# Holds a running instance against tools that others wrote: its document is validated, clients are generated from it, a
# warning about it is a failure, one of the clients walks through a scan, and schemathesis and wapiti try to break it. Ends what it
# started.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${KWTEST_TOOLS:-$PWD/.tools}
venv=$tools/interop
out=$(mktemp -d "${TMPDIR:-/tmp}/keywright-interop.XXXXXX")
running=()

finish() {
  local status=$? pid
  trap - EXIT INT TERM
  for pid in ${running[@]+"${running[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
  wait
  if [ "$status" -ne 0 ]; then tail -n 20 "$out"/*.log >&2 2>/dev/null || true; fi
  rm -rf "$out"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! cmp -s scripts/interop.txt "$venv/installed.txt"; then
  echo "installing the generators into $venv (once, 100 MB)" >&2
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/interop.txt
  cp scripts/interop.txt "$venv/installed.txt"
fi
PATH="$venv/bin:$PATH"
cargo build --workspace --bins
bin=$(scripts/target-dir.sh)/debug

# Made for this run: the instance is gone when it ends.
PASSWORD=$(python3 -c 'import secrets; print(secrets.token_urlsafe(24))')
export PASSWORD DATABASE_URL="sqlite://$out/keywright.db" KEYWRIGHT_DATA_DIR="$out/data"
export KEYWRIGHT_LISTEN=127.0.0.1:0 KEYWRIGHT_ADMIN_PASSWORD="$PASSWORD" KEYWRIGHT_LOG_FORMAT=json
export KEYWRIGHT_RATE_LIMIT_PER_MINUTE=0 KEYWRIGHT_RATE_LIMIT_PER_HOUR=0
mkdir "$out/data"
"$bin/keywright-api" --migrate >"$out/api.log" 2>&1 &
api=$!
running+=("$api")
"$bin/keywright-worker" >"$out/worker.log" 2>&1 &
running+=($!)
url=
while [ -z "$url" ]; do
  kill -0 "$api" # its log is shown when it has ended
  url=$(sed -n 's/.*keywright-api ready.*"address":"\([^"]*\)".*/http:\/\/\1/p' "$out/api.log")
  sleep 0.1
done
document=$out/openapi.json
python3 -c 'import sys, httpx; sys.stdout.buffer.write(httpx.get(sys.argv[1]).raise_for_status().content)' \
  "$url/openapi.json" >"$document"

echo "== openapi-spec-validator"
openapi-spec-validator "$document"

echo "== openapi-python-client"
openapi-python-client generate --path "$document" --output-path "$out/python" --fail-on-warning
PYTHONPATH="$out/python" python3 tests/interop/import_all.py

for generator in python typescript-fetch; do
  echo "== openapi-generator, $generator"
  openapi-generator-cli generate -i "$document" -g "$generator" -o "$out/$generator" >"$out/generator.log" 2>&1
  # It fails to name a schema of its own in every document, even one with a single operation; and it renames models that it does not
  # make, after two parameters whose names are not ours to choose: `from`, which clients rely on, and OAuth's `error`. Only these
  # lines may be there.
  if grep -wE 'WARN|ERROR' "$out/generator.log" | grep -vE \
    'ModelUtils - Failed to get the schema name: null$|Codegen - (From|Error) \([a-z ]*\) cannot be used as (a )?model name'; then
    echo "openapi-generator complains about the document; see above." >&2
    exit 1
  fi
done

echo "== a scan, through the client of openapi-python-client"
mkdir "$out/bundle"
PYTHONPATH="$out/python" python3 tests/interop/walk.py "$url" "$out/bundle"
scripts/schemathesis.sh --wapiti
echo "every tool takes the document without a warning"
