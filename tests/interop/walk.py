"""Does what a new user does, through the client that openapi-python-client generates: no request is written by hand.

usage: walk.py URL FOLDER      (the generated package on PYTHONPATH, the password of `admin` in PASSWORD)

Writes a bundle of certificates into FOLDER, logs in, adds a subscription to it, scans, waits, and reads what was found.
"""

import datetime
import os
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from keywright_client import AuthenticatedClient, Client
from keywright_client.api.auth import login
from keywright_client.api.discovery import list_assets, start_scan
from keywright_client.api.jobs import get_job
from keywright_client.api.subscriptions import create_subscription
from keywright_client.models import (
    JobState,
    LocalSettings,
    Login,
    NewSubscription,
    Problem,
    ProviderKind,
    SettingsInput,
    StartScan,
    Status,
)

EXPIRED, VALID = 7, 18
# pages of 10: two whole ones and a rest
PAGE = 10


def certificate(key, name, days):
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def write_bundle(path):
    """The names of the expired ones, and of all."""
    key = ec.generate_private_key(ec.SECP256R1())
    expired = [f"expired-{number}.example" for number in range(EXPIRED)]
    valid = [f"valid-{number}.example" for number in range(VALID)]
    bodies = [certificate(key, name, -10) for name in expired] + [certificate(key, name, 365) for name in valid]
    path.write_bytes(b"".join(bodies))
    return set(expired), set(expired + valid)


def answer(response, status):
    """The parsed body of an answer, which must be what was expected."""
    if response.status_code != status or response.parsed is None or isinstance(response.parsed, Problem):
        sys.exit(f"expected {status}, got {response.status_code}: {response.content.decode()}")
    return response.parsed


def pages(client, **filters):
    """Every page of the assets, along the cursors."""
    page = answer(list_assets.sync_detailed(client=client, limit=PAGE, **filters), 200)
    yield page.data
    while page.meta.has_more:
        cursor = page.meta.next_cursor
        page = answer(list_assets.sync_detailed(client=client, limit=PAGE, cursor=cursor, **filters), 200)
        yield page.data


def subjects(assets):
    return sorted(asset.certificate.subject.removeprefix("CN=") for asset in assets)


def same(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: found {found}, expected {expected}")


def main():
    url, folder = sys.argv[1:]
    bundle = pathlib.Path(folder, "bundle.pem")
    expired, everything = write_bundle(bundle)

    body = Login(username="admin", password=os.environ["PASSWORD"])
    tokens = answer(login.sync_detailed(client=Client(base_url=url), body=body), 200)
    client = AuthenticatedClient(base_url=url, token=tokens.access_token, timeout=90)
    print("logged in")

    wanted = NewSubscription(
        provider=ProviderKind.LOCAL,
        external_id="interop",
        name="A bundle",
        settings=SettingsInput(local=LocalSettings(paths=[str(bundle)])),
    )
    subscription = answer(create_subscription.sync_detailed(client=client, body=wanted), 201)
    print(f"added the subscription {subscription.name!r}")

    job = answer(start_scan.sync_detailed(client=client, body=StartScan(subscriptions=[subscription.id])), 202)
    while not job.done:
        job = answer(get_job.sync_detailed(job.id, client=client, wait=30), 200)
    same("the scan's end", job.state, JobState.SUCCEEDED)
    same("found", job.counts.found, len(everything))
    print(f"scanned: {job.counts.found} found")

    over = [asset for page in pages(client, status=[Status.EXPIRED]) for asset in page]
    same("expired", subjects(over), sorted(expired))
    print(f"status=expired: {len(over)}")

    sizes, rows = [], []
    for page in pages(client):
        sizes.append(len(page))
        rows.extend(page)
    same("the pages", sizes, [10, 10, 5])
    same("everything", subjects(rows), sorted(everything))
    print(f"limit={PAGE}: pages of {sizes}, each certificate once")


if __name__ == "__main__":
    main()
