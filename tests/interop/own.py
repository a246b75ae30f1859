"""Keeps schemathesis from what it works with itself: its user and its token, which it may read, but neither change nor remove."""

import json
import os
import urllib.request

import schemathesis


request = urllib.request.Request(os.environ["OWN_URL"] + "/api/auth/me", headers={"Authorization": f"Bearer {os.environ['OWN_TOKEN']}"})
with urllib.request.urlopen(request) as answer:
    me = json.load(answer)
OWN = {me["id"], me["credentialId"]}


@schemathesis.hook
def filter_case(context, case):
    own = str((case.path_parameters or {}).get("id", "")).lower() in OWN
    return not own or case.method == "GET"
