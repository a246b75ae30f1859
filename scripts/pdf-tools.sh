#!/bin/sh
# Prints a directory with qpdf and poppler's programs, for the tests; nothing where they cannot be had. Takes those of the system, else
# unpacks Debian's packages into KWTEST_TOOLS (default .tools) once, which needs no root.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${KWTEST_TOOLS:-$root/.tools}/pdf
programs="qpdf pdfdetach pdftotext pdftoppm"

if [ ! -d "$folder/bin" ]; then
  mkdir -p "$folder/new"
  missing=""
  for program in $programs; do command -v "$program" >/dev/null || missing=1; done
  if [ -n "$missing" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || exit 0
    (cd "$folder" && apt-get download qpdf libqpdf29 poppler-utils libpoppler126 libjpeg62-turbo libopenjp2-7 liblcms2-2 libtiff6 \
      libnss3 libnspr4 libfontconfig1 fontconfig-config libfreetype6 libpng16-16 libexpat1 libwebp7 liblerc4 libjbig0 libdeflate0 \
      libbrotli1 >&2 && for package in *.deb; do dpkg -x "$package" .; done) || exit 0
  fi
  for program in $programs; do
    found=$(command -v "$program" || echo "$folder/usr/bin/$program")
    cat >"$folder/new/$program" <<END
#!/bin/sh
LD_LIBRARY_PATH=\$(echo "$folder"/usr/lib/*-linux-gnu)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$found" "\$@"
END
    chmod +x "$folder/new/$program"
  done
  mv "$folder/new" "$folder/bin"
fi
if "$folder/bin/qpdf" --version >/dev/null 2>&1 && "$folder/bin/pdftotext" -v >/dev/null 2>&1; then echo "$folder/bin"; fi
