"""Resolves what a task definition names as a secret, as the ECS agent does before a container starts."""

from __future__ import annotations

import json

from local.account.context import AccountContext
from local.account.principals import RoleCredentials


class SecretError(OSError):
    """A secret that can't be read, or lacks the key that is asked for."""


def resolve(context: AccountContext, value_from: str, role: RoleCredentials | None) -> str:
    """The text behind `arn:aws:secretsmanager:…:secret:NAME-abcdef[:key:stage:version]` or an SSM parameter.

    `role` is the task's execution role, with which the agent reads it.
    """
    if ":secretsmanager:" not in value_from:
        parameters = context.boto3_client("ssm", role).get_parameters(
            Names=[value_from.partition(":parameter")[2] or value_from], WithDecryption=True
        )["Parameters"]
        if not parameters:
            raise SecretError(f"unable to retrieve the parameter {value_from}: it does not exist")
        return str(parameters[0]["Value"])
    parts = value_from.split(":")
    arn, key = ":".join(parts[:7]), parts[7] if len(parts) > 7 else ""
    secret = context.boto3_client("secretsmanager", role).get_secret_value(SecretId=arn)["SecretString"]
    if not key:
        return str(secret)
    values = json.loads(secret)
    if key not in values:
        raise SecretError(f"retrieved secret from Secrets Manager did not contain json key {key}: {arn}")
    return str(values[key])
