#!/bin/bash
# Every test, on SQLite and on PostgreSQL, against private servers that are ended afterwards. Arguments go to `cargo test`.
#
# The tests find what was started in KWTEST_POSTGRES_URL (its administrator), KWTEST_VENV (the emulators' Python)
# and KWTEST_FAKETIME (a library that shifts clocks).
# KWTEST_POSTGRES_DURABLE=1 leaves PostgreSQL's durability on, which is slower.
set -euo pipefail
# Each job in a process group of its own, so that a signal to this script can be passed on to a whole test run.
set -m
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/keywright-test.XXXXXX")

finish() {
  trap - EXIT INT TERM
  kill -TERM %% 2>/dev/null && wait || true
  scripts/postgres.sh stop "$work/postgres"
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

KWTEST_VENV=$(scripts/venv.sh)
export KWTEST_VENV
KWTEST_FAKETIME=$(scripts/faketime.sh)
export KWTEST_FAKETIME
KWTEST_PGBOUNCER=$(scripts/pgbouncer.sh)
export KWTEST_PGBOUNCER
KWTEST_PDF_TOOLS=$(scripts/pdf-tools.sh)
export KWTEST_PDF_TOOLS
chmod 711 "$work" # PostgreSQL may run as another user
fast=(-c fsync=off -c full_page_writes=off -c synchronous_commit=off)
if [ "${KWTEST_POSTGRES_DURABLE:-}" = 1 ]; then fast=(); fi
KWTEST_POSTGRES_URL=$(scripts/postgres.sh start "$work/postgres" ${fast[@]+"${fast[@]}"})
export KWTEST_POSTGRES_URL
if [ -t 1 ]; then export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always}; fi

# The binaries too: the tests start them as processes. The worker that breaks promises, by which the fault tests prove that they
# would notice, is a second build of our own crates, so only CI and who has built it once make it.
chaos() {
  [ "${CI:-}" = true ] || [ -x "$(scripts/target-dir.sh)/debug/keywright-chaos-worker" ] || return 0
  cargo build --workspace --features chaos --bin keywright-chaos-worker
}
(cargo build --workspace && chaos && cargo test --workspace --no-fail-fast "$@") </dev/null 2>&1 | tee "$work/output" &
status=0
wait %% || status=$?

# A test that lacks a system package says so past libtest's capture and passes; on CI nothing may be left out.
skipped=$(grep -c 'skipped: needs' "$work/output" || true)
if [ "$skipped" -gt 0 ]; then
  echo "$skipped tests were skipped for lack of a package:"
  grep -h 'skipped: needs' "$work/output" | sort | uniq -c
  if [ "${CI:-}" = true ] && [ "$status" -eq 0 ]; then status=1; fi
fi
exit "$status"
