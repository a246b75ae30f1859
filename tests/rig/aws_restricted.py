"""Makes a user that has this policy and no other, and prints its access key as JSON.

usage: aws_restricted.py URL POLICY_FILE
"""

import json
import sys

import boto3

url, policy = sys.argv[1:]
keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-a-real-key"}
iam = boto3.client("iam", endpoint_url=url, region_name="us-east-1", **keys)
iam.create_user(UserName="keywright")
with open(policy, encoding="utf-8") as text:
    iam.put_user_policy(UserName="keywright", PolicyName="inventory", PolicyDocument=text.read())
made = iam.create_access_key(UserName="keywright")["AccessKey"]
print(json.dumps({"id": made["AccessKeyId"], "secret": made["SecretAccessKey"]}))
