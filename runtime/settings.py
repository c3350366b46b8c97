"""What DAGs know of their environment, read when a task runs, never when a DAG file is parsed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import boto3

# Longest names that SageMaker takes: https://docs.aws.amazon.com/sagemaker/latest/APIReference/
LONGEST_NAME = {"tuning": 32}
LONGEST_NAME_DEFAULT = 63
DIGEST_CHARACTERS = 10


@dataclass(frozen=True)
class WorkflowSettings:
    """The JSON of the SSM parameter `{prefix}/workflows`, written by the workflows stack.

    What has a default here may be absent there: a runtime may be newer than the stacks.
    """

    region: str
    role_arn: str
    training_image: str
    data_bucket: str
    model_package_group: str
    subnet_ids: list[str]
    security_group_ids: list[str]
    instance_types: dict[str, str]
    max_runtime_seconds: int
    poll_seconds: int
    monthly_budget_usd: int
    usd_per_hour: dict[str, float]
    failures_topic_arn: str | None = None
    insurance: dict[str, Any] = field(default_factory=dict)
    spark: dict[str, Any] = field(default_factory=dict)


def workflow_settings() -> WorkflowSettings:
    """Read the settings; raises ValueError naming the keys that are missing."""
    name = f"{os.environ['UPDRAFT_SSM_PREFIX']}/workflows"
    values = json.loads(boto3.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    known = fields(WorkflowSettings)
    missing = [
        key.name
        for key in known
        if key.name not in values and key.default is MISSING and key.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{name}: not there: {', '.join(missing)}; deploy the workflows stack again")
    return WorkflowSettings(**{key.name: values[key.name] for key in known if key.name in values})


def job_name(context: Mapping[str, Any], *, kind: str, number: int | None = None) -> str:
    """A SageMaker name that a task instance always gets again: `{environment}-{task}-{digest of what it is}`.

    `number` tells things of the same task instance apart; each try has names of its own unless one is given. What a
    retry must not make again is named after what it is made from.

    At most 63 characters, 32 for a tuning job; letters, digits and single hyphens.
    """
    instance = context["ti"]
    mark = instance.try_number if number is None else f"number-{number}"
    identity = f"{instance.dag_id}/{instance.run_id}/{instance.task_id}/{instance.map_index}/{mark}/{kind}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:DIGEST_CHARACTERS]
    environment = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}"
    words = re.sub(r"[^a-zA-Z0-9]+", "-", f"{environment}-{instance.task_id}").strip("-")
    longest = LONGEST_NAME.get(kind, LONGEST_NAME_DEFAULT) - DIGEST_CHARACTERS - 1
    return f"{words[:longest].rstrip('-')}-{digest}"


def tags(context: Mapping[str, Any]) -> list[dict[str, str]]:
    """The tags of everything that a task makes on SageMaker."""
    instance = context["ti"]
    version = getattr(context.get("dag_run"), "bundle_version", None) or getattr(
        instance, "bundle_version", None
    )
    values = {
        "updraft:project": os.environ["UPDRAFT_PROJECT"],
        "updraft:environment": os.environ["UPDRAFT_ENVIRONMENT"],
        "updraft:dag": instance.dag_id,
        "updraft:run": instance.run_id,
        "updraft:task": instance.task_id,
        "updraft:map-index": str(instance.map_index),
        "updraft:bundle-version": version or "none",
    }
    # Characters that a tag's value can't have become underscores.
    return [
        {"Key": key, "Value": re.sub(r"[^\w\s+=.:/@-]", "_", value)[:256]} for key, value in values.items()
    ]
