#!/bin/sh
# Makes or updates the Python environment with the pinned emulators, and prints its directory: KWTEST_VENV, else .tools/venv.
# Returns at once when the requirements have not changed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${KWTEST_VENV:-$root/.tools/venv}
requirements=$root/tests/rig/requirements.txt

# Written last: an interrupted installation is not taken for a whole one. A removed interpreter makes the copy worthless.
installed=$venv/installed-requirements.txt
if ! cmp -s "$requirements" "$installed" || ! "$venv/bin/python" -c '' 2>/dev/null; then
  if ! command -v python3 >/dev/null 2>&1; then
    echo "venv.sh: python3 is not on the PATH; the emulators of the tests need it (Debian: apt install python3-venv)." >&2
    exit 1
  fi
  echo "installing the emulators into $venv (once, about a minute)" >&2
  rm -f "$installed"
  # Without --clear: KWTEST_VENV may name a directory that holds more than this.
  if ! python3 -m venv "$venv" >&2; then
    echo "venv.sh: python3 has no venv module; install it (Debian: apt install python3-venv)." >&2
    exit 1
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
  cp "$requirements" "$installed"
fi
echo "$venv"
