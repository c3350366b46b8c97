"""One endpoint: brought to a configuration step by step, and back to the one before when its deployment is given up.

The tag `updraft:serves` names the configuration that the last complete deployment left. What differs from it has no
right to live without its task: this module undoes it, and the reaper does where SageMaker didn't let it (SageMaker
refuses any change while it deploys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from runtime.sagemaker.jobs import stop_tags
from runtime.sagemaker.resources import RESOURCES, is_missing

SERVES = "updraft:serves"
# On every endpoint that a task has made or begun to change.
OWNER = "updraft:task"
MOVING = RESOURCES["endpoint"].moving
Tags = Sequence[Mapping[str, str]]
Step = Literal["deployed", "submitted", "waiting"]


class DeploymentError(RuntimeError):
    """SageMaker did not deploy a configuration."""


class Endpoint:
    """An endpoint by its name, whether it exists or not. `client` is boto3's of SageMaker."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def describe(self) -> dict[str, Any] | None:
        """The description, None when there is no such endpoint."""
        try:
            found: dict[str, Any] = self._client.describe_endpoint(EndpointName=self.name)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return found

    def bring_to(self, config: str, request: Mapping[str, Any], tags: Tags, *, submitted: bool) -> Step:
        """Do the next thing towards serving `config`, which `request` describes.

        `deployed`: it serves. `submitted`: SageMaker is on its way to it. `waiting`: something else has to end first.
        `submitted` says that an earlier step was on its way; raises DeploymentError when that one did not arrive.
        """
        found = self.describe()
        if found is None:
            if submitted:
                raise DeploymentError(f"endpoint {self.name} was deleted during its deployment")
            self._create_config(config, request, tags)
            self._submit("create_endpoint", config, Tags=list(tags))
            return "submitted"
        status, serving = found["EndpointStatus"], found["EndpointConfigName"]
        if status in MOVING:
            return "submitted" if _target(found) == config else "waiting"
        if status == "InService" and serving == config:
            return "deployed"
        if submitted:
            reason = found.get("FailureReason", "no reason given")
            raise DeploymentError(
                f"endpoint {self.name} is {status} with {serving} instead of {config}: {reason}"
            )
        if status != "InService":
            # Nothing else can be done with it.
            self._client.delete_endpoint(EndpointName=self.name)
            return "waiting"
        self._create_config(config, request, tags)
        self._take_ownership(found, tags)
        self._submit("update_endpoint", config)
        return "submitted"

    def keep(self, config: str) -> None:
        """Note that a deployment is complete: from here on the endpoint lives on without its task."""
        found = self.describe()
        if found is None:
            return
        before = self._tags(found["EndpointArn"]).get(SERVES)
        self._client.add_tags(ResourceArn=found["EndpointArn"], Tags=[{"Key": SERVES, "Value": config}])
        if before not in (None, config):
            self.delete_config(str(before))

    def undo(self, config: str | None, *, by: str, reason: str) -> str:
        """Give up a deployment of `config`, if there is one, and tell what was done.

        What a complete deployment has left serves on; an endpoint that never got that far is deleted.
        """
        found = self.describe()
        if found is None:
            self.delete_config(config)
            return "there is no endpoint"
        its_tags = self._tags(found["EndpointArn"])
        serves = its_tags.get(SERVES)
        if serves is None and OWNER not in its_tags:
            self.delete_config(config)
            return "it is left alone, since others made it and this deployment had not begun"
        if found["EndpointStatus"] in MOVING:
            self._client.add_tags(ResourceArn=found["EndpointArn"], Tags=stop_tags(by, reason))
            return f"it is {found['EndpointStatus']} and can't be changed now; the reaper undoes it"
        if serves is None:
            self._client.delete_endpoint(EndpointName=self.name)
            self.delete_config(config)
            return "it is deleted, since no deployment of it was ever complete"
        if found["EndpointStatus"] == "InService" and found["EndpointConfigName"] != serves:
            self._client.update_endpoint(EndpointName=self.name, EndpointConfigName=serves)
            return f"it goes back to {serves}"
        if config != serves:
            self.delete_config(config)
        return f"it serves {serves}"

    def delete(self) -> str | None:
        """Ask for its end, unless a deployment has to end first; returns its configuration, None when it is gone."""
        found = self.describe()
        if found is None:
            return None
        if found["EndpointStatus"] not in MOVING:
            self._client.delete_endpoint(EndpointName=self.name)
        return str(found["EndpointConfigName"])

    def delete_config(self, config: str | None) -> None:
        """Delete a configuration that no endpoint serves, if there is one."""
        if config is None:
            return
        try:
            self._client.delete_endpoint_config(EndpointConfigName=config)
        except ClientError as error:
            if not is_missing(error):
                raise

    def _create_config(self, config: str, request: Mapping[str, Any], tags: Tags) -> None:
        try:
            self._client.create_endpoint_config(**request, EndpointConfigName=config, Tags=list(tags))
        except ClientError as error:
            # A name is made from its content: what has it already is the same.
            if "already existing" not in str(error):
                raise

    def _take_ownership(self, found: Mapping[str, Any], tags: Tags) -> None:
        """Say whose deployment this is, and to what the endpoint goes back; one that others made gets its mark too."""
        arn = found["EndpointArn"]
        serves = self._tags(arn).get(SERVES, found["EndpointConfigName"])
        self._client.add_tags(ResourceArn=arn, Tags=[*tags, {"Key": SERVES, "Value": serves}])

    def _submit(self, operation: str, config: str, **more: Any) -> None:
        """Create or update; an error that came although it was accepted is none."""
        try:
            getattr(self._client, operation)(EndpointName=self.name, EndpointConfigName=config, **more)
        except (ClientError, BotoCoreError):
            found = self.describe()
            if found is None or _target(found) != config:
                raise

    def _tags(self, arn: str) -> dict[str, str]:
        pages = self._client.get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def _target(endpoint: Mapping[str, Any]) -> str:
    """The configuration that an endpoint has, or is on its way to."""
    pending = endpoint.get("PendingDeploymentSummary", {})
    return str(pending.get("EndpointConfigName", endpoint["EndpointConfigName"]))
