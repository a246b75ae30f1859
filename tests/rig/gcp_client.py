"""Drives a server of Google Cloud's interfaces with Google's own Python client (google-api-python-client).

usage: gcp_client.py URL PROJECT seed SECRETS ACCOUNTS   makes them, of several sorts
       gcp_client.py URL PROJECT list                    prints what there is
       gcp_client.py URL PROJECT read SECRET             reads a value, as no part of Keywright's inventory may

seed and list print, as JSON, exactly what the client lists:
{"secrets": {name: {"versions": {number: state}, "created": time of the newest}}, "keys": {name: type}, "projects": [id]}
"""

import base64
import json
import sys

from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build

url, project, command, *arguments = sys.argv[1:]


def service(name, version):
    options = {"api_endpoint": url}
    credentials = Credentials(token="ya29.of-the-test")
    return build(name, version, credentials=credentials, client_options=options, static_discovery=True, cache_discovery=False)


secrets = service("secretmanager", "v1").projects().secrets()
accounts = service("iam", "v1").projects().serviceAccounts()
projects = service("cloudresourcemanager", "v3").projects()


def pages(resource, method, member, **parameters):
    request = getattr(resource, method)(**parameters)
    while request is not None:
        answer = request.execute()
        yield from answer.get(member, [])
        request = getattr(resource, f"{method}_next")(request, answer)


def create(number):
    body = {"labels": {"owner": f"team-{number % 7}", "environment": "test"}, "annotations": {"number": str(number)}}
    replica = {"location": "europe-west1", "customerManagedEncryption": {"kmsKeyName": f"{KEYS}/k{number}"}}
    managed = {"userManaged": {"replicas": [replica]}}
    body["replication"] = managed if number % 5 == 1 else {"automatic": {}}
    if number % 5 == 2:
        body |= {"topics": [{"name": f"projects/{project}/topics/rotate"}]}
        body["rotation"] = {"rotationPeriod": "2592000s", "nextRotationTime": "2030-01-01T00:00:00Z"}
    if number % 5 == 3:
        body["ttl"] = "864000s"
    made = secrets.create(parent=f"projects/{project}", secretId=f"app-{number:04}", body=body).execute()
    for version in range(number % 4):
        payload = {"data": base64.b64encode(f"value-{number}-{version}".encode()).decode()}
        added = secrets.addVersion(parent=made["name"], body={"payload": payload}).execute()
        if version < number % 4 - 1:
            change = secrets.versions().destroy if version == 0 else secrets.versions().disable
            change(name=added["name"], body={"etag": added["etag"]}).execute()


def create_account(number):
    body = {"accountId": f"robot-{number:03}", "serviceAccount": {"displayName": f"Robot {number}"}}
    made = accounts.create(name=f"projects/{project}", body=body).execute()
    for key in range(number % 3):
        added = accounts.keys().create(name=made["name"], body={}).execute()
        assert added["privateKeyData"], "a new key is shown once"
        if key == 1:
            accounts.keys().disable(name=added["name"], body={}).execute()


KEYS = f"projects/{project}/locations/europe-west1/keyRings/main/cryptoKeys"


def listing():
    found = {"secrets": {}, "keys": {}, "projects": []}
    for secret in pages(secrets, "list", "secrets", parent=f"projects/{project}"):
        versions = list(pages(secrets.versions(), "list", "versions", parent=secret["name"]))
        states = {version["name"].rsplit("/", 1)[1]: version["state"] for version in versions}
        found["secrets"][secret["name"]] = {"versions": states, "created": versions[0]["createTime"] if versions else None}
    for account in pages(accounts, "list", "accounts", name=f"projects/{project}"):
        for key in accounts.keys().list(name=account["name"]).execute().get("keys", []):
            found["keys"][key["name"]] = key["keyType"]
    found["projects"] = [found["projectId"] for found in pages(projects, "search", "projects")]
    return found


if command == "read":
    print(json.dumps(secrets.versions().access(name=f"{arguments[0]}/versions/latest").execute()))
else:
    if command == "seed":
        for number in range(int(arguments[0])):
            create(number)
        for number in range(int(arguments[1])):
            create_account(number)
    print(json.dumps(listing()))
