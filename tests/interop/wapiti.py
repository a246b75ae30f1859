"""Tells what wapiti found, and fails when something is not explained below."""

import json
import sys

# Kind of finding, and why it is none.
EXPLAINED = {
    "Content Security Policy Configuration": "the pages of the document make their styles as they run, which needs 'unsafe-inline' for style-src alone",
    "HTTP Strict Transport Security (HSTS)": "the instance speaks plain http behind a proxy; with KEYWRIGHT_TLS_CERT the header is there",
    "Unencrypted Channels": "the same",
    "Secure Flag cookie": "the same",
}

report = json.load(open(sys.argv[1]))
unexplained = 0
for kind in ("vulnerabilities", "anomalies"):
    for name, findings in report.get(kind, {}).items():
        for finding in findings:
            reason = EXPLAINED.get(name)
            unexplained += reason is None
            print(f"{name}: {finding['info']} ({finding['method']} {finding['path']}): {reason or 'NOT EXPLAINED'}")
sys.exit(1 if unexplained else 0)
