#!/bin/sh
# A PostgreSQL for development that keeps its data between starts.
set -eu
cd "$(dirname "$0")/.."
# The server cannot run as root, and another user cannot look into root's home.
if [ "$(id -u)" -eq 0 ]; then dir=/var/tmp/keywright-postgres; else dir=$PWD/data/postgres; fi

case "${1:-start}" in
  start)
    url=$(scripts/postgres.sh start "$dir")
    # PostgreSQL wants a key that all processes share; this one is for this database only.
    mkdir -p data
    if [ ! -s data/postgres.key ]; then
      (umask 077 && head -c 32 /dev/urandom | base64 >data/postgres.key)
    fi
    cat <<TEXT
PostgreSQL runs with its data in $dir. Point Keywright at it with

  export DATABASE_URL=$url KEYWRIGHT_MASTER_KEY_FILE=$PWD/data/postgres.key

and end it with: ./just db-postgres stop
TEXT
    ;;
  stop) scripts/postgres.sh stop "$dir" ;;
  *)
    echo "usage: ./just db-postgres [start|stop]" >&2
    exit 2
    ;;
esac
