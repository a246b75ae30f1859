"""What Google's discovery documents say of requests and answers, for the double of Google Cloud.

The documents come with PyPI's google-api-python-client. A path, parameter or field that they do not know is a Violation.
"""

import base64
import binascii
import json
import pathlib
import re

import googleapiclient

DOCUMENTS = pathlib.Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
SERVICES = ["secretmanager.v1", "iam.v1", "cloudresourcemanager.v3", "iamcredentials.v1"]
FORMATS = {
    "google-datetime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"),
    "google-duration": re.compile(r"-?\d+(\.\d{1,9})?s"),
    "int64": re.compile(r"-?\d+"),
}


class Violation(Exception):
    """Something that the discovery documents do not allow."""


class Method:
    def __init__(self, described, document):
        self.id = described["id"]
        self.verb = described["httpMethod"]
        self.request = described.get("request")
        self.response = described["response"]
        self.schemas = document["schemas"]
        self.query = {
            name: rule
            for name, rule in {**document["parameters"], **described["parameters"]}.items()
            if rule["location"] == "query"
        }
        self.path = re.compile(self._pattern(described))

    @staticmethod
    def _pattern(described):
        pattern = ""
        for text, name in re.findall(r"([^{]*)(?:\{\+?(\w+)\})?", described["path"]):
            pattern += re.escape(text)
            if name:
                rule = described["parameters"][name].get("pattern", "^[^/]+$")
                pattern += f"(?P<{name}>{rule.removeprefix('^').removesuffix('$')})"
        return pattern

    def check_query(self, query):
        for name, values in query.items():
            if name not in self.query:
                raise Violation(f"{self.id} has no parameter {name}")
            if len(values) > 1 and not self.query[name].get("repeated"):
                raise Violation(f"{self.id}: {name} is given more than once")
            for value in values:
                rule = self.query[name]
                if rule["type"] == "integer" and not value.isdigit():
                    raise Violation(f"{self.id}: {name} is no integer")
                if "enum" in rule and value not in rule["enum"]:
                    raise Violation(f"{self.id}: {name} is none of its values")

    def check_request(self, body):
        if self.request is None and body is not None:
            raise Violation(f"{self.id} takes no body")
        if self.request is not None and body is not None:
            self.check(self.request, body, "request")

    def check_response(self, body):
        self.check(self.response, body, "response")

    def check(self, schema, value, at):
        schema = self.schemas[schema["$ref"]] if "$ref" in schema else schema
        kind = schema["type"]
        if kind == "any":
            return
        expected = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
        if not isinstance(value, expected[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
            raise Violation(f"{self.id}: {at} is no {kind}")
        if kind == "object":
            for name, member in value.items():
                rule = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
                if rule is None:
                    raise Violation(f"{self.id}: {at}.{name} is unknown")
                self.check(rule, member, f"{at}.{name}")
        elif kind == "array":
            for number, item in enumerate(value):
                self.check(schema["items"], item, f"{at}[{number}]")
        elif kind == "string":
            self._check_text(schema, value, at)

    def _check_text(self, schema, value, at):
        if "enum" in schema and value not in schema["enum"]:
            raise Violation(f"{self.id}: {at} is none of its values")
        form = FORMATS.get(schema.get("format"))
        if form and not form.fullmatch(value):
            raise Violation(f"{self.id}: {at} has not the format {schema['format']}")
        if schema.get("format") == "byte":
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error:
                raise Violation(f"{self.id}: {at} is not base64") from None


def check_error(body):
    """The one shape of errors: google.rpc.Status in an envelope."""
    if not isinstance(body, dict) or set(body) != {"error"}:
        raise Violation("an error is an object with the member error")
    unknown = set(body["error"]) - {"code", "message", "status", "details", "errors"}
    details = body["error"].get("details", [])
    if unknown or not all("@type" in detail for detail in details):
        raise Violation(f"an error has {unknown or 'a detail without @type'}")


def methods():
    def walk(resources, document):
        for resource in resources.values():
            for described in resource.get("methods", {}).values():
                yield Method(described, document)
            yield from walk(resource.get("resources", {}), document)

    for service in SERVICES:
        document = json.loads((DOCUMENTS / f"{service}.json").read_text(encoding="utf-8"))
        yield from walk(document["resources"], document)


class Directory:
    def __init__(self):
        self.methods = list(methods())

    def find(self, verb, path):
        """The method and the names in its path."""
        known = False
        for method in self.methods:
            match = method.path.fullmatch(path)
            if match:
                known = True
                if method.verb == verb:
                    return method, match.groupdict()
        raise Violation(f"{verb} {path}: " + ("no such verb here" if known else "no such path"))
