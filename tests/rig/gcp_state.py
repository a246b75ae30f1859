"""What the double of Google Cloud holds, and how its methods behave: hand-written after Google's documentation.

Each method takes the names of its path, the query and the body, and returns the answer or raises a Refusal.
"""

import base64
import datetime
import json
import re
import uuid

LATIN = re.compile(r"[A-Za-z0-9_-]{1,255}")
SECONDS = re.compile(r"(\d+)(\.\d+)?s")


class Refusal(Exception):
    def __init__(self, code, word, message, reason=None, metadata=None, domain="googleapis.com"):
        super().__init__(message)
        self.code = code
        self.headers = {}
        details = []
        if reason:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain}
            details = [{**info, **({"metadata": metadata} if metadata else {})}]
        self.body = {"error": {"code": code, "message": message, "status": word, **({"details": details} if details else {})}}


def missing(name):
    return Refusal(404, "NOT_FOUND", f"Resource [{name}] not found.")


def bad(message):
    return Refusal(400, "INVALID_ARGUMENT", message)


def text_of(instant):
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def told(**members):
    """Without what is a default, as protobuf's JSON leaves it out."""
    return {name: value for name, value in members.items() if value not in (None, "", False, 0, [], {})}


class State:
    def __init__(self):
        self.projects = {}
        self.secrets = {}
        self.accounts = {}
        self.largest = None
        self.generation = 0
        self.clock = datetime.datetime.now(datetime.timezone.utc)

    def add_project(self, project, state="ACTIVE"):
        number = str(100000000000 + len(self.projects))
        self.projects[project] = {"number": number, "state": state}

    def now(self):
        """Each moment is another, so that what was made later is newer."""
        self.clock = max(datetime.datetime.now(datetime.timezone.utc), self.clock + datetime.timedelta(microseconds=1))
        return self.clock

    def parent(self, name):
        """The name as answers spell it: with the number of the project."""
        _, project, *rest = name.split("/")
        for known, facts in self.projects.items():
            if project in (known, facts["number"]):
                return "/".join(["projects", facts["number"], *rest])
        raise Refusal(403, "PERMISSION_DENIED", f"Permission denied on resource project {project}.", "CONSUMER_INVALID")

    def page(self, of, items, query, most, default):
        size = int(query.get("pageSize", ["0"])[0]) or default
        size = min(size, most, self.largest or most)
        start = 0
        if "pageToken" in query:
            try:
                generation, list_of, start = json.loads(base64.urlsafe_b64decode(query["pageToken"][0]))
            except ValueError:
                raise bad("Request contains an invalid argument.") from None
            if (generation, list_of) != (self.generation, of):
                raise bad("Request contains an invalid argument.")
        token = json.dumps([self.generation, of, start + size]).encode()
        more = start + size < len(items)
        return items[start : start + size], base64.urlsafe_b64encode(token).decode() if more else None

    # Secret Manager

    def list_secrets(self, names, query, _):
        parent = self.parent(names["parent"])
        found = [secret["shown"] for name, secret in self.secrets.items() if name.rsplit("/", 2)[0] == parent]
        found.sort(key=lambda secret: secret["createTime"], reverse=True)
        page, token = self.page(f"{parent}/secrets", found, query, 25000, 25000)
        return told(secrets=page, nextPageToken=token, totalSize=len(found))

    def create_secret(self, names, query, body):
        parent, name = self.parent(names["parent"]), query.get("secretId", [""])[0]
        if not LATIN.fullmatch(name):
            raise bad("The secret id is invalid.")
        regional = "/locations/" in parent
        if regional == ("replication" in body):
            raise bad("A global secret has a replication, and a regional one has none.")
        if "rotation" in body and not body.get("topics"):
            raise bad("Topics must be set for a rotation.")
        full = f"{parent}/secrets/{name}"
        if full in self.secrets:
            raise Refusal(409, "ALREADY_EXISTS", f"Secret [{full}] already exists.")
        now = self.now()
        shown = {**body, "name": full, "createTime": text_of(now), "etag": self.etag()}
        ttl = shown.pop("ttl", None)
        if ttl:
            seconds = float(SECONDS.fullmatch(ttl).group(1))
            shown["expireTime"] = text_of(now + datetime.timedelta(seconds=seconds))
        self.secrets[full] = {"shown": shown, "versions": []}
        return shown

    @staticmethod
    def etag():
        return f'"{uuid.uuid4().hex[:14]}"'

    def secret(self, name):
        try:
            return self.secrets[self.parent(name)]
        except KeyError:
            raise missing(name) from None

    def add_version(self, names, _, body):
        secret = self.secret(names["parent"])
        data = base64.b64decode(body.get("payload", {}).get("data", ""))
        if not data or len(data) > 65536:
            raise bad("The payload must have 1 to 65536 bytes.")
        number = len(secret["versions"]) + 1
        shown = {
            "name": f"{secret['shown']['name']}/versions/{number}",
            "createTime": text_of(self.now()),
            "state": "ENABLED",
            "etag": self.etag(),
        }
        if "replication" in secret["shown"]:
            shown["replicationStatus"] = {"automatic": {}}
        secret["versions"].append({"shown": shown, "data": data})
        return shown

    def list_versions(self, names, query, _):
        secret = self.secret(names["parent"])
        found = [version["shown"] for version in reversed(secret["versions"])]
        page, token = self.page(f"{secret['shown']['name']}/versions", found, query, 25000, 25000)
        return told(versions=page, nextPageToken=token, totalSize=len(found))

    def version(self, name):
        of, _, number = name.rpartition("/versions/")
        versions = self.secret(of)["versions"]
        # the alias is the version made last, whatever its state
        number = str(len(versions)) if number == "latest" else number
        if not number.isdigit() or not 0 < int(number) <= len(versions):
            raise missing(name)
        return versions[int(number) - 1]

    def get_version(self, names, *_):
        return self.version(names["name"])["shown"]

    def access_version(self, names, *_):
        version = self.version(names["name"])
        shown = version["shown"]
        if shown["state"] != "ENABLED":
            raise Refusal(400, "FAILED_PRECONDITION", f"Secret Version [{shown['name']}] is in {shown['state']} state.")
        return {"name": shown["name"], "payload": {"data": base64.b64encode(version["data"]).decode()}}

    def change_state(self, state):
        def change(names, _, body):
            shown = self.version(names["name"])["shown"]
            if (body or {}).get("etag", shown["etag"]) != shown["etag"] or shown["state"] == "DESTROYED":
                raise Refusal(400, "FAILED_PRECONDITION", "The version is in another state.")
            shown.update(state=state, etag=self.etag())
            if state == "DESTROYED":
                shown["destroyTime"] = text_of(self.now())
            return shown

        return change

    # IAM

    def project(self, name):
        project = name.split("/")[1]
        if project not in self.projects:
            raise missing(name)
        return project

    def list_accounts(self, names, query, _):
        project = self.project(names["name"])
        found = [account["shown"] for account in self.accounts.values() if account["shown"]["projectId"] == project]
        page, token = self.page(f"{project}/serviceAccounts", found, query, 100, 20)
        return told(accounts=page, nextPageToken=token)

    def create_account(self, names, _, body):
        project = self.project(names["name"])
        email = f"{body['accountId']}@{project}.iam.gserviceaccount.com"
        if email in self.accounts:
            raise Refusal(409, "ALREADY_EXISTS", f"Service account {body['accountId']} already exists.")
        shown = {
            "name": f"projects/{project}/serviceAccounts/{email}",
            "projectId": project,
            "uniqueId": str(uuid.uuid4().int)[:21],
            "email": email,
            **body.get("serviceAccount", {}),
        }
        # Google keeps one of its own for each account and replaces it every so often
        days = datetime.timedelta(days=16)
        self.accounts[email] = {"shown": shown, "keys": [self.key(shown, "SYSTEM_MANAGED", text_of(self.now() + days))]}
        return shown

    def key(self, account, kind, until):
        return {
            "name": f"{account['name']}/keys/{uuid.uuid4().hex}{uuid.uuid4().hex[:8]}",
            "validAfterTime": text_of(self.now())[:19] + "Z",
            "validBeforeTime": until[:19] + "Z",
            "keyAlgorithm": "KEY_ALG_RSA_2048",
            "keyOrigin": "GOOGLE_PROVIDED",
            "keyType": kind,
        }

    def account(self, name):
        _, project, _, email, *_ = name.split("/")
        account = self.accounts.get(email)
        if account is None or project not in ("-", account["shown"]["projectId"]):
            raise missing(name)
        return account

    def list_keys(self, names, query, _):
        keys = self.account(names["name"])["keys"]
        return told(keys=[key for key in keys if key["keyType"] in query.get("keyTypes", [key["keyType"]])])

    def create_key(self, names, _, body):
        account = self.account(names["name"])
        if sum(key["keyType"] == "USER_MANAGED" for key in account["keys"]) == 10:
            raise Refusal(429, "RESOURCE_EXHAUSTED", "Maximum number of keys on account reached.")
        key = self.key(account["shown"], "USER_MANAGED", "9999-12-31T23:59:59Z")
        account["keys"].append(key)
        material = base64.b64encode(b'{"private_key": "shown once"}').decode()
        return {**key, "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE", "privateKeyData": material}

    def disable_key(self, names, _, body):
        for key in self.account(names["name"])["keys"]:
            if key["name"].rsplit("/", 1)[1] == names["name"].rsplit("/", 1)[1]:
                key.update(disabled=True, disableReason="SERVICE_ACCOUNT_KEY_DISABLE_REASON_USER_INITIATED")
                return {}
        raise missing(names["name"])

    def disable_account(self, names, *_):
        self.account(names["name"])["shown"]["disabled"] = True
        return {}

    def access_token(self, names, _, body):
        email = self.account(names["name"])["shown"]["email"]
        if not body.get("scope"):
            raise bad("A scope is required.")
        until = self.now() + datetime.timedelta(hours=1)
        return {"accessToken": f"impersonated:{email}", "expireTime": text_of(until)[:19] + "Z"}

    # Resource Manager

    def search_projects(self, names, query, _):
        found = [
            {
                "name": f"projects/{facts['number']}",
                "projectId": project,
                "displayName": project.replace("-", " ").title(),
                "state": facts["state"],
                "etag": "x",
            }
            for project, facts in self.projects.items()
        ]
        page, token = self.page("projects", found, query, 500, 100)
        return told(projects=page, nextPageToken=token)

    def handlers(self):
        handlers = {
            "iam.projects.serviceAccounts.list": self.list_accounts,
            "iam.projects.serviceAccounts.create": self.create_account,
            "iam.projects.serviceAccounts.disable": self.disable_account,
            "iam.projects.serviceAccounts.keys.list": self.list_keys,
            "iam.projects.serviceAccounts.keys.create": self.create_key,
            "iam.projects.serviceAccounts.keys.disable": self.disable_key,
            "iamcredentials.projects.serviceAccounts.generateAccessToken": self.access_token,
            "cloudresourcemanager.projects.search": self.search_projects,
        }
        for of in ("projects.secrets", "projects.locations.secrets"):
            of = f"secretmanager.{of}"
            handlers |= {
                f"{of}.list": self.list_secrets,
                f"{of}.create": self.create_secret,
                f"{of}.addVersion": self.add_version,
                f"{of}.versions.list": self.list_versions,
                f"{of}.versions.get": self.get_version,
                f"{of}.versions.access": self.access_version,
                f"{of}.versions.enable": self.change_state("ENABLED"),
                f"{of}.versions.disable": self.change_state("DISABLED"),
                f"{of}.versions.destroy": self.change_state("DESTROYED"),
            }
        return handlers
