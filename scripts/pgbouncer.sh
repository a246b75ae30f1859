#!/bin/sh
# Prints a program that runs pgbouncer, for the tests; nothing where there is none. Takes that of the system, else unpacks Debian's
# packages into KWTEST_TOOLS (default .tools) once, which needs no root.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${KWTEST_TOOLS:-$root/.tools}/pgbouncer
program=$folder/run

if [ ! -x "$program" ]; then
  found=$(command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null || true)
  mkdir -p "$folder"
  if [ -z "$found" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || exit 0
    (cd "$folder" && apt-get download pgbouncer libc-ares2 libevent-2.1-7 >&2 && for package in *.deb; do dpkg -x "$package" .; done) || exit 0
    found=$folder/usr/sbin/pgbouncer
  fi
  # it refuses to run as root
  cat >"$program.new" <<END
#!/bin/sh
LD_LIBRARY_PATH=\$(echo "$folder"/usr/lib/*)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
if [ "\$(id -u)" -eq 0 ]; then exec "$found" -u nobody "\$@"; fi
exec "$found" "\$@"
END
  chmod +x "$program.new"
  mv "$program.new" "$program"
fi
if "$program" --version >/dev/null 2>&1; then echo "$program"; fi
