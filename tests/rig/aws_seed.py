"""Fills an AWS emulator through boto3 and prints, as JSON, exactly what boto3 lists afterwards.

usage: aws_seed.py URL [--secrets N] [--certificates N] [--parameters N] [--keys N] [--users N] [--regions a,b,c]
                   [--writers N] [--role ARN]

What has a region is dealt out over the regions in turn. Certificates are imported, with keys of several types. Every user has
two access keys, and there is a server certificate per user.
prints {"secrets": {region: [arn]}, "certificates": {region: [arn]}, "parameters": {region: [arn]}, "keys": {region: [arn]},
        "access_keys": ["user's arn/accessKey/n"], "server_certificates": [arn]}, without what was not asked for
"""

import argparse
import datetime
import json
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

# ListCertificates shows RSA keys of up to 2048 bits unless it is asked for the others
KEY_TYPES = ["RSA_1024", "RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1", "EC_secp521r1"]
DAYS = [3, 20, 90, 365]


def session(arguments):
    given = boto3.Session(aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="not-a-real-key")
    if not arguments.role:
        return given
    sts = given.client("sts", endpoint_url=arguments.url, region_name=arguments.regions[0])
    keys = sts.assume_role(RoleArn=arguments.role, RoleSessionName="seed")["Credentials"]
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])


def keys():
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return [rsa_key, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())]


def certificate(key, name, days):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName(f"www.{name}")])
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--secrets", type=int, default=0)
    parser.add_argument("--certificates", type=int, default=0)
    parser.add_argument("--parameters", type=int, default=0)
    parser.add_argument("--keys", type=int, default=0)
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--regions", type=lambda text: text.split(","), default=["us-east-1"])
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--role")
    arguments = parser.parse_args()
    opened = session(arguments)
    config = Config(max_pool_connections=arguments.writers)

    def clients(service):
        options = {"endpoint_url": arguments.url, "config": config}
        return {region: opened.client(service, region_name=region, **options) for region in arguments.regions}

    secrets = clients("secretsmanager")
    region_of = lambda number: arguments.regions[number % len(arguments.regions)]

    def create(number):
        secrets[region_of(number)].create_secret(
            Name=f"app/{number:06d}",
            Description=f"secret number {number}",
            SecretString=f"value-{number}",
            Tags=[{"Key": "owner", "Value": f"team-{number % 7}"}, {"Key": "environment", "Value": "test"}],
        )

    with ThreadPoolExecutor(arguments.writers) as writers:
        list(writers.map(create, range(arguments.secrets)))
    listed = {"secrets": {}, "certificates": {}}
    for region, client in secrets.items():
        pages = client.get_paginator("list_secrets").paginate(PaginationConfig={"PageSize": 100})
        listed["secrets"][region] = [secret["ARN"] for page in pages for secret in page["SecretList"]]
    if arguments.certificates:
        acm, made = clients("acm"), keys()
        for number in range(arguments.certificates):
            body, key = certificate(made[number % len(made)], f"host-{number}.example", DAYS[number % len(DAYS)])
            acm[region_of(number)].import_certificate(Certificate=body, PrivateKey=key)
        for region, client in acm.items():
            pages = client.get_paginator("list_certificates").paginate(Includes={"keyTypes": KEY_TYPES})
            found = [summary["CertificateArn"] for page in pages for summary in page["CertificateSummaryList"]]
            listed["certificates"][region] = found
    if arguments.parameters:
        listed["parameters"] = parameters(clients("ssm"), arguments.parameters, region_of)
    if arguments.keys:
        listed["keys"] = kms_keys(clients("kms"), arguments.keys, region_of)
    if arguments.users:
        iam = opened.client("iam", region_name=arguments.regions[0], endpoint_url=arguments.url, config=config)
        listed.update(users(iam, arguments.users))
    print(json.dumps(listed))


def parameters(ssm, count, region_of):
    for number in range(count):
        kind = ["String", "SecureString", "StringList"][number % 3]
        ssm[region_of(number)].put_parameter(Name=f"/app/{number}", Value=f"value-{number}", Type=kind)
    pages = {region: client.get_paginator("describe_parameters").paginate() for region, client in ssm.items()}
    return {region: [one.get("ARN", one["Name"]) for page in found for one in page["Parameters"]] for region, found in pages.items()}


def kms_keys(kms, count, region_of):
    """The first of each region is open to another account; each has an alias."""
    other = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::999999999999:root"}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [other]})
    seen = set()
    for number in range(count):
        region = region_of(number)
        options = {"Tags": [{"TagKey": "owner", "TagValue": f"team-{number}"}]}
        if region not in seen:
            options["Policy"] = policy
        arn = kms[region].create_key(**options)["KeyMetadata"]["Arn"]
        kms[region].create_alias(AliasName=f"alias/app-{number}", TargetKeyId=arn)
        seen.add(region)
    pages = {region: client.get_paginator("list_keys").paginate() for region, client in kms.items()}
    return {region: [key["KeyArn"] for page in found for key in page["Keys"]] for region, found in pages.items()}


def users(iam, count):
    access, key = [], keys()[0]
    for number in range(count):
        arn = iam.create_user(UserName=f"user-{number}")["User"]["Arn"]
        for ordinal in (1, 2):
            iam.create_access_key(UserName=f"user-{number}")
            access.append(f"{arn}/accessKey/{ordinal}")
        body, private = certificate(key, f"server-{number}.example", 30)
        name = f"server-{number}"
        iam.upload_server_certificate(ServerCertificateName=name, CertificateBody=body.decode(), PrivateKey=private.decode())
    found = iam.list_server_certificates()["ServerCertificateMetadataList"]
    return {"access_keys": access, "server_certificates": [one["Arn"] for one in found]}


if __name__ == "__main__":
    main()
