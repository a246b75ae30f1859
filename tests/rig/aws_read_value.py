"""Reads one secret's value through boto3: the positive control of the test that the product never does.

usage: aws_read_value.py URL REGION SECRET_ARN
"""

import sys

import boto3

url, region, secret = sys.argv[1:]
keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-a-real-key"}
boto3.client("secretsmanager", endpoint_url=url, region_name=region, **keys).get_secret_value(SecretId=secret)
