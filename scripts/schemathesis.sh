#!/bin/bash
# Lets schemathesis, which others wrote, ask a running instance everything that its document allows and much that it does not; with
# `--wapiti` a scanner for weaknesses goes over it afterwards. On SQLite, and on PostgreSQL where there is one. Ends what it
# started. What may be answered to valid data is in tests/interop/schemathesis.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${KWTEST_TOOLS:-$PWD/.tools}
out=$(mktemp -d "${TMPDIR:-/tmp}/keywright-schemathesis.XXXXXX")
api=

finish() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$api" ]; then kill -TERM "$api" 2>/dev/null || true; fi
  wait
  scripts/postgres.sh stop "$out/postgres"
  if [ "$status" -ne 0 ]; then tail -n 20 "$out"/*.log >&2 2>/dev/null || true; fi
  rm -rf "$out"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The two want different versions of the same packages.
install() {
  if ! cmp -s "scripts/$1.txt" "$tools/$1/installed.txt"; then
    echo "installing $1 into $tools/$1 (once, 100 MB)" >&2
    python3 -m venv --clear "$tools/$1"
    "$tools/$1/bin/pip" install --quiet --disable-pip-version-check -r "scripts/$1.txt"
    cp "scripts/$1.txt" "$tools/$1/installed.txt"
  fi
}
install schemathesis
if [ "${1:-}" = --wapiti ]; then install wapiti; fi
cargo build --workspace --bins
bin=$(scripts/target-dir.sh)/debug
chmod 711 "$out" # PostgreSQL may run as another user
postgres=$(scripts/postgres.sh start "$out/postgres" -c fsync=off -c synchronous_commit=off)
KEYWRIGHT_MASTER_KEY=$(head -c 32 /dev/urandom | base64)
export KEYWRIGHT_MASTER_KEY KEYWRIGHT_DATA_DIR="$out/data" KEYWRIGHT_LISTEN=127.0.0.1:0 KEYWRIGHT_LOG_FORMAT=json
export KEYWRIGHT_RATE_LIMIT_PER_MINUTE=0 KEYWRIGHT_RATE_LIMIT_PER_HOUR=0
mkdir "$out/data"

for database in "sqlite://$out/keywright.db" "$postgres"; do
  echo "== schemathesis, ${database%%:*}"
  export DATABASE_URL=$database
  log=$out/${database%%:*}.log
  "$bin/keywright-api" migrate
  "$bin/keywright-api" --migrate >"$log" 2>&1 &
  api=$!
  url=
  while [ -z "$url" ]; do
    kill -0 "$api" # its log is shown when it has ended
    url=$(sed -n 's/.*keywright-api ready.*"address":"\([^"]*\)".*/http:\/\/\1/p' "$log")
    sleep 0.1
  done
  token=$("$bin/keywright-api" create-token --name schemathesis --role admin)
  # left out: what would end the tool's own credentials (and see own.py), and streams of events, which have no end to wait for
  SCHEMATHESIS_HOOKS=own PYTHONPATH=tests/interop OWN_URL=$url OWN_TOKEN=$token "$tools/schemathesis/bin/st" \
    --config-file tests/interop/schemathesis.toml run "$url/openapi.json" -H "Authorization: Bearer $token" \
    --checks all --mode all --max-examples "${EXAMPLES:-50}" --request-timeout 70 --warnings off \
    --exclude-operation-id logout --exclude-operation-id changePassword \
    --exclude-operation-id followJob --exclude-operation-id followJobs \
    --exclude-path-regex '^/api/auth/sessions'
  if [ "${1:-}" = --wapiti ]; then
    echo "== wapiti, ${database%%:*}"
    before=$(wc -l <"$log")
    # left out: the stream of events, which has no end to wait for, and the module that needs a host of its authors' to call back
    "$tools/wapiti/bin/wapiti" -u "$url/" -s "$url/docs" -x "$url/api/events*" --scope folder -m common,-ssrf \
      -H "Authorization: Bearer $token" --swagger "$url/openapi.json" --max-scan-time 300 --max-attack-time 120 \
      --flush-session --store-session "$out/session" -f json -o "$out/wapiti.json" >"$out/wapiti.log" 2>&1
    tail -n "+$((before + 1))" "$log" >"$out/asked"
    python3 tests/interop/wapiti.py "$out/wapiti.json" "$out/asked"
  fi
  kill -TERM "$api"
  wait "$api" || true
  api=
done
