#!/bin/bash
# The fault tests over and over with new seeds, and faults that last as long as they do in life: `./just soak 60` for an hour.
# Ends at the first failure and says with which seed. `KWTEST_SEED=… ./just test faults` repeats its choices.
set -euo pipefail
cd "$(dirname "$0")/.."
until=$((SECONDS + ${1:-30} * 60))
round=0
export KWTEST_LONG=1 CI=true
while [ "$SECONDS" -lt "$until" ]; do
  round=$((round + 1))
  export KWTEST_SEED=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
  echo "== round $round: KWTEST_SEED=$KWTEST_SEED"
  if ! scripts/test.sh --test it -- faults; then
    echo "== round $round failed: KWTEST_SEED=$KWTEST_SEED" >&2
    exit 1
  fi
done
echo "== $round rounds without a failure"
