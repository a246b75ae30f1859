"""Makes what is rotated, and tells how it stands, through boto3.

usage: aws_rotation.py URL seed        a user with an access key in a secret, and a secret with a password
       aws_rotation.py URL state ARN   the secret's labels and value, and the keys of the user

The label is named because moto, asked for none, gives the version that was current first. Both print JSON: {"key": arn, "password": arn}, or {"stages": {version: [label]}, "value": text, "keys": {id: status}}.
"""

import json
import sys

import boto3

url, command, *arguments = sys.argv[1:]
login = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-a-real-key"}
options = {"endpoint_url": url, "region_name": "eu-west-1", **login}
iam, secrets = boto3.client("iam", **options), boto3.client("secretsmanager", **options)
USER = "app"

if command == "seed":
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    value = {"accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"], "note": "kept"}
    made = {
        "key": secrets.create_secret(Name="app/key", SecretString=json.dumps(value))["ARN"],
        "password": secrets.create_secret(Name="app/password", SecretString=json.dumps({"user": "u", "password": "old"}))["ARN"],
    }
    print(json.dumps(made))
else:
    described = secrets.describe_secret(SecretId=arguments[0])
    keys = iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]
    state = {
        "stages": described["VersionIdsToStages"],
        "value": secrets.get_secret_value(SecretId=arguments[0], VersionStage="AWSCURRENT")["SecretString"],
        "keys": {key["AccessKeyId"]: key["Status"] for key in keys},
    }
    print(json.dumps(state))
