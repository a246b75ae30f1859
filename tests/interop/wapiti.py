"""Tells what wapiti found, and fails when something is not explained below, or when it did not ask for much.

Arguments: its report, and what the API logged meanwhile."""

import collections
import json
import sys

# Kind of finding, and why it is none.
EXPLAINED = {
    "Content Security Policy Configuration": "the pages of the document make their styles as they run, which needs 'unsafe-inline' for style-src alone",
    "HTTP Strict Transport Security (HSTS)": "the instance speaks plain http behind a proxy; with KEYWRIGHT_TLS_CERT the header is there",
    "Unencrypted Channels": "the same",
    "Secure Flag cookie": "the same",
}

# Operations that wapiti must have attacked, each with so many requests.
OPERATIONS, REQUESTS = 30, 20

report = json.load(open(sys.argv[1]))
asked = collections.Counter()
failed = 0
for line in open(sys.argv[2]):
    try:
        entry = json.loads(line)
    except ValueError:
        continue
    if entry.get("message") == "request" and entry.get("route", "-") != "-":
        asked[entry["method"], entry["route"]] += 1
        if entry["status"] == 500:
            failed += 1
            print("500:", line.strip())
unexplained = 0
for kind in ("vulnerabilities", "anomalies"):
    for name, findings in report.get(kind, {}).items():
        for finding in findings:
            reason = EXPLAINED.get(name)
            unexplained += reason is None
            print(f"{name}: {finding['info']} ({finding['method']} {finding['path']}): {reason or 'NOT EXPLAINED'}")
attacked = sum(count >= REQUESTS for count in asked.values())
print(f"{sum(asked.values())} requests for {len(asked)} operations, {attacked} of them attacked, {failed} answered 500, {unexplained} findings not explained")
sys.exit(1 if unexplained or failed or attacked < OPERATIONS else 0)
