#!/bin/sh
# Prints the path of libfaketime, by which the fault tests give one process another clock; nothing where it cannot be had.
# Takes it from the system, else unpacks Debian's package into .tools (or KWTEST_TOOLS) once, without installing it; apt checks
# what it downloads against Debian's signed index.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
tools=${KWTEST_TOOLS:-$root/.tools}

find_in() {
  find "$1" -path '*/faketime/libfaketime.so.1' 2>/dev/null | head -n 1
}

found=$(find_in /usr/lib)
[ -n "$found" ] || found=$(find_in "$tools/faketime")
if [ -z "$found" ] && command -v apt-get >/dev/null 2>&1; then
  mkdir -p "$tools/faketime"
  echo "unpacking libfaketime into $tools/faketime (once, 50 kB)" >&2
  (cd "$tools/faketime" && apt-get download -q libfaketime && dpkg-deb -x libfaketime_*.deb . && rm -f libfaketime_*.deb) \
    >/dev/null 2>&1 || true
  found=$(find_in "$tools/faketime")
fi
printf '%s\n' "$found"
