#!/bin/bash
# The cloud emulators on fixed ports of 127.0.0.1, to try a scan by hand. The tests start their own on free ports.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .rig

down() {
  local file
  for file in .rig/*.pid; do
    [ -f "$file" ] || continue
    # After a crash the number may belong to somebody else.
    if ps -p "$(cat "$file")" -o args= 2>/dev/null | grep -q "$(basename "$file" .pid)"; then kill "$(cat "$file")"; fi
    rm -f "$file"
  done
}

launch() {
  local name=$1
  shift
  "$@" >".rig/$name.log" 2>&1 </dev/null &
  echo $! >".rig/$name.pid"
}

case "${1:-}" in
  up)
    venv=$(scripts/venv.sh)
    down
    # One thread: moto's stores are plain dictionaries that concurrent requests corrupt.
    launch moto "$venv/bin/python" tests/rig/moto_serial.py 5555
    launch roto "$venv/bin/roto-server" --host 127.0.0.1 --port 5070 --ephemeral
    launch microburst "$venv/bin/microburst" --host 127.0.0.1 -u http://127.0.0.1:5555 -p 9999
    cat <<'TEXT'
moto        http://127.0.0.1:5555   AWS: Secrets Manager, ACM, IAM, STS
roto        http://127.0.0.1:5070   AWS: Secrets Manager, faster and stricter; no ACM
microburst  http://127.0.0.1:9999   moto with injected faults

  export AWS_ENDPOINT_URL=http://127.0.0.1:5555 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1

Logs are in .rig/. End them with: ./just rig down
TEXT
    ;;
  down) down ;;
  *)
    echo "usage: ./just rig up|down" >&2
    exit 2
    ;;
esac
