"""Resolves what a task definition names as a secret, as the ECS agent does before a container starts."""

from __future__ import annotations

import json

from local.account.context import AccountContext


class SecretError(OSError):
    """A secret that can't be read, or lacks the key that is asked for."""


def resolve(context: AccountContext, value_from: str) -> str:
    """The text behind `arn:aws:secretsmanager:…:secret:NAME-abcdef[:key:stage:version]` or an SSM parameter."""
    if ":secretsmanager:" not in value_from:
        parameter = context.boto3_client("ssm").get_parameter(
            Name=value_from.partition(":parameter")[2] or value_from, WithDecryption=True
        )
        return str(parameter["Parameter"]["Value"])
    parts = value_from.split(":")
    arn, key = ":".join(parts[:7]), parts[7] if len(parts) > 7 else ""
    secret = context.boto3_client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    if not key:
        return str(secret)
    values = json.loads(secret)
    if key not in values:
        raise SecretError(f"retrieved secret from Secrets Manager did not contain json key {key}: {arn}")
    return str(values[key])
