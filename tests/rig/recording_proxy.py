"""Stands before an AWS emulator: records which calls are made, slows them down, and answers some of them itself.

usage: recording_proxy.py PORT UPSTREAM JOURNAL [--latency-ms N]      (binds 127.0.0.1)

Each call appends one JSON line to JOURNAL: {"service", "operation", "region", "status", "injected"}; never a body.
PUT /_latency {"ms": 50}   adds that much to every call from now on; calls do not wait for one another
PUT /_rules [...]          replaces the rules; the first that fits a call answers it, with an error of AWS's own shape:
    {"operation": "ListSecrets", "region": "eu-west-1", "times": 3, "status": 429, "retryAfter": 1}
    service, operation and region that are absent fit every call; "contains" is a part of the operation; without "times" a rule never wears out;
    "code" and "message" default to what AWS says with that status
"""

import argparse
import http.client
import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
CODES = {400: "ValidationException", 403: "AccessDeniedException", 429: "ThrottlingException"}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


class State:
    def __init__(self, upstream, journal, latency_ms):
        self.upstream = urllib.parse.urlsplit(upstream)
        self.journal = open(journal, "a", buffering=1, encoding="utf-8")
        self.latency = latency_ms / 1000
        self.rules = []
        self.lock = threading.Lock()

    def record(self, call, status, injected):
        line = json.dumps({**call, "status": status, "injected": injected})
        with self.lock:
            self.journal.write(line + "\n")

    def rule_for(self, call):
        with self.lock:
            for rule in self.rules:
                fits = all(rule.get(key) in (None, call[key]) for key in ("service", "operation", "region"))
                fits = fits and rule.get("contains", "") in call["operation"]
                if fits and rule.get("times") != 0:
                    if rule.get("times") is not None:
                        rule["times"] -= 1
                    return dict(rule)
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state = None

    def handle_call(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in ("/_rules", "/_latency"):
            return self.control(json.loads(body))
        call = self.call(body)
        time.sleep(self.state.latency)
        rule = self.state.rule_for(call)
        # recorded before the answer leaves: whoever has the answer finds the line
        if rule:
            self.state.record(call, rule["status"], True)
            return self.refuse(call, rule)
        status, headers, answer = self.forward(body)
        self.state.record(call, status, False)
        return self.answer(status, headers, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_call

    def control(self, value):
        with self.state.lock:
            if self.path == "/_rules":
                self.state.rules = value
            else:
                self.state.latency = value["ms"] / 1000
        self.answer(204, [], b"")

    def call(self, body):
        """What is asked for, in whichever of AWS's protocols."""
        scope = SCOPE.search(self.headers.get("Authorization") or "")
        region, service = scope.groups() if scope else (None, None)
        operation = (self.headers.get("X-Amz-Target") or "").rpartition(".")[2]
        if not operation and (self.headers.get("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
            operation = urllib.parse.parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0]
        return {"service": service, "operation": operation or f"{self.command} {self.path}", "region": region}

    def refuse(self, call, rule):
        action = f"{call['service']}:{call['operation']}"
        code = rule.get("code") or CODES.get(rule["status"], "InternalServiceError")
        message = rule.get("message") or {
            "AccessDeniedException": f"User: arn:aws:iam::123456789012:user/rig is not authorized to perform: {action}"
            " because no identity-based policy allows the action",
            "ThrottlingException": "Rate exceeded",
        }.get(code, "injected")
        # S3 speaks XML, and no other protocol of AWS reads an error from it
        if call["service"] == "s3":
            kind = "application/xml"
            body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        else:
            kind, body = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
        headers = [("Content-Type", kind)]
        if "retryAfter" in rule:
            headers.append(("Retry-After", str(rule["retryAfter"])))
        self.answer(rule["status"], headers, body.encode())

    def forward(self, body):
        upstream = http.client.HTTPConnection(self.state.upstream.hostname, self.state.upstream.port, timeout=60)
        try:
            # the Host header goes through unchanged: it is signed
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            upstream.request(self.command, self.path, body, {**headers, "Connection": "close"})
            reply = upstream.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        except OSError as error:
            return 502, [], str(error).encode()
        finally:
            upstream.close()

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if self.command == "HEAD":
            # how long the body would be, which only the server behind knows
            length = next((value for name, value in headers if name.lower() == "content-length"), "0")
            self.send_header("Content-Length", length)
        elif status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    parser.add_argument("journal")
    parser.add_argument("--latency-ms", type=float, default=0)
    arguments = parser.parse_args()
    Handler.state = State(arguments.upstream, arguments.journal, arguments.latency_ms)
    Server(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
