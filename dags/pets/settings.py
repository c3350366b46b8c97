"""What the pet detection DAG knows of its environment, read when a task runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from typing import Any

import boto3

Section = dict[str, Any]


@dataclass(frozen=True)
class PetsSettings:
    """The JSON of the SSM parameter `{prefix}/pets`, written by the pets stack.

    `build` is there with a `platform` other than `none`; `ecs` or `eks` is there with the platform of that name.
    """

    training_image: str
    instance_type: str
    model_package_group: str
    platform: str
    build: Section | None = None
    ecs: Section | None = None
    eks: Section | None = None


def pets_settings() -> PetsSettings:
    """Read the settings; raises ValueError where the environment has no pets."""
    name = f"{os.environ['UPDRAFT_SSM_PREFIX']}/pets"
    client = boto3.client("ssm")
    try:
        values = json.loads(client.get_parameter(Name=name)["Parameter"]["Value"])
    except client.exceptions.ParameterNotFound as error:
        raise ValueError(
            f"{name} is not there: this environment has no pet detection; "
            "add a section [pets] to its file in environments/ and deploy"
        ) from error
    known = [field.name for field in fields(PetsSettings)]
    return PetsSettings(**{key: value for key, value in values.items() if key in known})
