//! What lies in a package beside its contents: how to check it, and the sums.

use super::{files::Written, source::Source};
use std::fmt::Write;

/// The sums in the form of `sha256sum`.
pub fn sums(files: &[Written]) -> String {
    files.iter().fold(String::new(), |mut text, file| {
        let _ = writeln!(text, "{}  {}", file.sha256, file.path);
        text
    })
}

/// For people who have never seen such a package.
pub fn readme(source: &Source<'_>, verifier_key: &str) -> String {
    let package = source.package;
    let organisation = match source.organisation() {
        "" => "(not named by the operator)",
        name => name,
    };
    format!(
        "\
Keywright evidence package {id}
Organisation: {organisation}
Period:       {from} to {as_of}
Exported at:  {exported}
Signed by:    {verifier_key}

HOW TO CHECK IT, WITH NOTHING BUT openssl AND sha256sum

Take the public key from whoever vouches for the instance (GET /api/evidence/keys), never from here. It is
NAME+ID+BASE64. Put what follows the second + in place of BASE64:

  (printf '\\060\\052\\060\\005\\006\\003\\053\\145\\160\\003\\041\\000'; echo BASE64 | base64 -d | tail -c 32) |
    openssl pkey -pubin -inform DER -out key.pem
  openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in manifest.json -sigfile manifest.sig
  grep -q \"$(sha256sum SHA256SUMS | cut -c1-64)\" manifest.json && sha256sum -c SHA256SUMS

The first command makes a key file, the second says whether the manifest is signed, the third whether every file is as it was
signed. manifest.json also lists every file with size and rows; there must be no other file beside it, manifest.sig and those.

THE SAME AND MORE, WITH OUR VERIFIER

  keywright-verify package PACKAGE.zip --key NAME+ID+BASE64 [--checkpoint OLDER-CHECKPOINT]

It needs no network and no database. It names the first fault by file and row, compares each CSV with its JSONL, draws the
samples again, hashes the events of the audit log up to their signed checkpoint, and looks for the end of each job among them.
It ends with 0 = valid, 1 = tampered with, 2 = incomplete, 3 = called in a wrong way.

WHAT IS IN IT

  scope.json          what it is about, what was asked for, and what it cannot tell (the gaps)
  population/*.csv    whole populations, in the order of their keys; the same as JSON lines in *.jsonl. Cells are as they were
                      seen, never changed for spreadsheets: open them with an import that takes formulas for text
  population/gaps.csv what was denied, throttled, skipped, stale, failed or never looked at
  sample/*.csv        samples of the populations
  audit/events.ndjson the audit log's events of the period, in the form of its export, if whoever asked may see the log
  manifest.json       every file with size, rows and SHA-256, and how each population was counted

TO DRAW A SAMPLE AGAIN

Seed: {seed}
For each row of a population compute SHA-256 over the seed, a line feed, and the row's key, its first column:

  printf '%s\\n%s' \"$SEED\" \"$KEY\" | sha256sum

Sort by these and take the first {size}. A sample's first column is that hash.
",
        id = package.id,
        from = super::request::spelled(package.period_from),
        as_of = super::request::spelled(package.as_of),
        exported = super::request::spelled(package.created_at),
        seed = source.seed(),
        size = source.sample().size,
    )
}
