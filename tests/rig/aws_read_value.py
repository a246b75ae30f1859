"""Reads one secret's value through boto3: the positive control of the test that the product never does.

usage: aws_read_value.py URL REGION SECRET_ARN [ACCESS_KEY_ID SECRET_ACCESS_KEY]
"""

import sys

import boto3

url, region, secret = sys.argv[1:4]
access, signing = sys.argv[4:] or ("AKIAIOSFODNN7EXAMPLE", "not-a-real-key")
keys = {"aws_access_key_id": access, "aws_secret_access_key": signing}
boto3.client("secretsmanager", endpoint_url=url, region_name=region, **keys).get_secret_value(SecretId=secret)
