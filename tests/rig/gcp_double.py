"""A double of Google Cloud: Secret Manager, IAM's service accounts and keys, the project search and impersonation.

usage: gcp_double.py PORT JOURNAL      (binds 127.0.0.1)

No emulator of these can be installed that pages, denies or keeps rotation (drongo lists secrets in one page). Each request and
each answer is held against Google's discovery documents (gcp_discovery.py); what they do not allow is journalled as a violation.
How methods behave is hand-written after Google's documentation (gcp_state.py).

Each call appends one JSON line to JOURNAL: {"method", "path", "status", "injected", "identity", "violation"}; never a body.
PUT /_projects ["acme-prod"]   adds projects
PUT /_pages {"largest": 10}    gives at most so many of anything at once
PUT /_tokens {}                lets all page tokens given so far expire
PUT /_role ["secretmanager.secrets.list"]   from now on these permissions are all that anybody has; null: everything
PUT /_rules [...]              replaces the rules; the first that fits a call answers it:
    {"method": "secretmanager.projects.secrets.list", "path": "part of it", "times": 3, "status": 429, "retryAfter": 1}
    method and path that are absent fit every call; without "times" a rule never wears out; "word", "reason" and "metadata" fill
    Google's error, "retryDelay" its RetryInfo, and "text" replaces the whole body
"""

import base64
import json
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gcp_discovery import Directory, Violation, check_error
from gcp_state import Refusal, State

WORDS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
# as Google documents for each method; the discovery documents do not tell
PERMISSIONS = {
    "iam.projects.serviceAccounts.list": "iam.serviceAccounts.list",
    "iam.projects.serviceAccounts.create": "iam.serviceAccounts.create",
    "iam.projects.serviceAccounts.disable": "iam.serviceAccounts.disable",
    "iam.projects.serviceAccounts.keys.list": "iam.serviceAccountKeys.list",
    "iam.projects.serviceAccounts.keys.create": "iam.serviceAccountKeys.create",
    "iam.projects.serviceAccounts.keys.disable": "iam.serviceAccountKeys.disable",
    "iamcredentials.projects.serviceAccounts.generateAccessToken": "iam.serviceAccounts.getAccessToken",
}
for parent in ("projects.secrets", "projects.locations.secrets"):
    for method, permission in {
        "list": "secrets.list",
        "create": "secrets.create",
        "addVersion": "versions.add",
        "versions.list": "versions.list",
        "versions.get": "versions.get",
        "versions.access": "versions.access",
        "versions.enable": "versions.enable",
        "versions.disable": "versions.disable",
        "versions.destroy": "versions.destroy",
    }.items():
        PERMISSIONS[f"secretmanager.{parent}.{method}"] = f"secretmanager.{permission}"


class Double:
    def __init__(self, journal):
        self.state = State()
        self.handlers = self.state.handlers()
        self.directory = Directory()
        self.journal = open(journal, "a", buffering=1, encoding="utf-8")
        self.role = None
        self.rules = []
        self.lock = threading.Lock()

    def control(self, path, value):
        if path == "/_projects":
            for project in value:
                self.state.add_project(project)
        elif path == "/_pages":
            self.state.largest = value["largest"]
        elif path == "/_tokens":
            self.state.generation += 1
        elif path == "/_role":
            self.role = value
        elif path == "/_rules":
            self.rules = value
        else:
            return 404
        return 200

    def rule_for(self, method, path):
        for rule in self.rules:
            fits = rule.get("method") in (None, method.id) and rule.get("path", "") in path
            if fits and rule.get("times") != 0:
                if rule.get("times") is not None:
                    rule["times"] -= 1
                return rule
        return None

    def answer(self, verb, target, headers, body):
        """The status, the headers, the body, and what the journal says."""
        url = urllib.parse.urlsplit(target)
        path = urllib.parse.unquote(url.path).removeprefix("/")
        line = {"method": None, "path": path, "injected": False, "identity": identity(headers), "violation": None}
        try:
            method, names = self.directory.find(verb, path)
            line["method"] = method.id
            query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
            method.check_query(query)
            method.check_request(body)
            rule = self.rule_for(method, path)
            if rule:
                line["injected"] = True
                return *injected(rule), line
            if line["identity"] is None:
                raise Refusal(401, "UNAUTHENTICATED", "Request is missing required authentication credential.")
            answer = self.allowed(method, path)(names, query, body)
            method.check_response(answer)
            return 200, {}, json.dumps(answer), line
        except Refusal as refusal:
            check_error(refusal.body)
            return refusal.code, refusal.headers, json.dumps(refusal.body), line
        except Violation as violation:
            line["violation"] = str(violation)
            body = {"error": {"code": 400, "message": f"double: {violation}", "status": "INVALID_ARGUMENT"}}
            return 400, {}, json.dumps(body), line

    def allowed(self, method, path):
        if method.id not in self.handlers:
            raise Violation(f"the double does not play {method.id}")
        permission = PERMISSIONS.get(method.id)
        # a search is never denied: it finds the projects in which the identity has resourcemanager.projects.get
        if permission is None and self.role is not None and "resourcemanager.projects.get" not in self.role:
            return lambda *_: {}
        if permission and self.role is not None and permission not in self.role:
            metadata = {"permission": permission, "resource": path.split("/", 1)[1]}
            message = f"Permission '{permission}' denied on resource (or it may not exist)."
            raise Refusal(403, "PERMISSION_DENIED", message, "IAM_PERMISSION_DENIED", metadata, "iam.googleapis.com")
        return self.handlers[method.id]


def identity(headers):
    """Who asks: the account that signed the token, or the token itself where it is none that signs."""
    kind, _, token = (headers.get("Authorization") or "").partition(" ")
    if kind != "Bearer" or not token:
        return None
    try:
        claims = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"]
    except (IndexError, KeyError, ValueError):
        return token


def injected(rule):
    status = rule["status"]
    word = rule.get("word", WORDS.get(status, "UNAVAILABLE"))
    refusal = Refusal(status, word, "told to", rule.get("reason"), rule.get("metadata"))
    details = refusal.body["error"].get("details", [])
    if "retryDelay" in rule:
        details = [*details, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": rule["retryDelay"]}]
        refusal.body["error"]["details"] = details
    check_error(refusal.body)
    headers = {"Retry-After": str(rule["retryAfter"])} if "retryAfter" in rule else {}
    return status, headers, rule.get("text", json.dumps(refusal.body))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double = None

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        read = self.rfile.read(length)
        body = json.loads(read) if read else None
        with self.double.lock:
            if self.command == "PUT" and self.path.startswith("/_"):
                return self.reply(self.double.control(self.path, body), {}, "{}")
            status, headers, text, line = self.double.answer(self.command, self.path, self.headers, body)
            self.double.journal.write(json.dumps({**line, "status": status}) + "\n")
        self.reply(status, headers, text)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one

    def reply(self, status, headers, text):
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json; charset=UTF-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Handler.double = Double(sys.argv[2])
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
