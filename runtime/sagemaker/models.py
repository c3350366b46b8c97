"""Models, and names that say what they stand for: the same content always has the same name."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from runtime.sagemaker.requests import vpc_config
from runtime.settings import DIGEST_CHARACTERS, LONGEST_NAME_DEFAULT, WorkflowSettings


def environment_name(what: str) -> str:
    """`{project}-{environment}-{what}`: what a DAG may make and change. Raises ValueError for a name SageMaker refuses."""
    name = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}-{what}"
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", name) or len(name) > LONGEST_NAME_DEFAULT:
        raise ValueError(
            f"{name!r} is no name on SageMaker: letters, digits and single hyphens between them are allowed, "
            f"at most {LONGEST_NAME_DEFAULT}"
        )
    return name


def content_name(words: str, content: Mapping[str, Any]) -> str:
    """`{words}-{digest of the content}`, at most 63 characters."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{words[: LONGEST_NAME_DEFAULT - DIGEST_CHARACTERS - 1].rstrip('-')}-{digest}"


def complete_model(request: Mapping[str, Any], settings: WorkflowSettings) -> dict[str, Any]:
    """The request in the environment's VPC and with its role, unless it names others."""
    return {"ExecutionRoleArn": settings.role_arn, "VpcConfig": vpc_config(settings), **request}


def create_model(
    client: Any, name: str, request: Mapping[str, Any], tags: Sequence[Mapping[str, str]]
) -> bool:
    """Create a model; False when one of this name is there already."""
    try:
        client.create_model(ModelName=name, Tags=list(tags), **request)
    except ClientError as error:
        if "already existing" not in str(error):
            raise
        return False
    return True
