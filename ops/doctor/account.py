"""What the checks look at: the environment's file, its account, and what more than one check asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from botocore.exceptions import ClientError

from stacks.config import EnvironmentConfig

MOST_TASKS_AT_ONCE = 100
MOST_SERVICES_AT_ONCE = 10


class Place(Protocol):
    """What the doctor needs of ops.target.Target."""

    @property
    def config(self) -> EnvironmentConfig: ...

    def client(self, service: str) -> Any:
        """A boto3 client."""

    def output(self, stack: str, key: str) -> str:
        """A stack output."""

    def airflow(self) -> Any:
        """A logged-in client of Airflow's API."""

    def recorded_permissions(self) -> dict[str, Any] | None:
        """What roles did in the emulated account; None for an account of AWS."""


@dataclass(frozen=True)
class Account:
    """One environment at one moment; `now` is aware of its time zone."""

    place: Place
    now: datetime

    @property
    def config(self) -> EnvironmentConfig:
        return self.place.config

    @cached_property
    def airflow(self) -> Any:
        return self.place.airflow()

    def client(self, service: str) -> Any:
        """A boto3 client of the environment's account."""
        return self.place.client(service)

    @cached_property
    def cluster(self) -> str:
        return self.place.output("airflow", "ClusterName")

    @cached_property
    def services(self) -> list[dict[str, Any]]:
        """Every ECS service, as described."""
        ecs = self.client("ecs")
        pages = ecs.get_paginator("list_services").paginate(cluster=self.cluster)
        arns = [arn for page in pages for arn in page["serviceArns"]]
        found: list[dict[str, Any]] = []
        for start in range(0, len(arns), MOST_SERVICES_AT_ONCE):
            some = arns[start : start + MOST_SERVICES_AT_ONCE]
            found += ecs.describe_services(cluster=self.cluster, services=some)["services"]
        return found

    @cached_property
    def tasks(self) -> list[dict[str, Any]]:
        """Every task that runs, as described."""
        return [task for task in self.list_tasks("RUNNING") if task["lastStatus"] == "RUNNING"]

    def list_tasks(self, desired_status: str, **filters: str) -> list[dict[str, Any]]:
        """The tasks of the cluster with this desired status (ECS remembers stopped ones for an hour)."""
        ecs = self.client("ecs")
        pages = ecs.get_paginator("list_tasks").paginate(
            cluster=self.cluster, desiredStatus=desired_status, **filters
        )
        arns = [arn for page in pages for arn in page["taskArns"]]
        found: list[dict[str, Any]] = []
        for start in range(0, len(arns), MOST_TASKS_AT_ONCE):
            some = arns[start : start + MOST_TASKS_AT_ONCE]
            found += ecs.describe_tasks(cluster=self.cluster, tasks=some)["tasks"]
        return found

    def definition(self, reference: str) -> dict[str, Any]:
        """A task definition by ARN, or by family for its newest revision."""
        if reference not in self._definitions:
            answer = self.client("ecs").describe_task_definition(taskDefinition=reference)
            self._definitions[reference] = answer["taskDefinition"]
        return self._definitions[reference]

    @cached_property
    def _definitions(self) -> dict[str, dict[str, Any]]:
        return {}

    def worker(self, queue: str) -> dict[str, Any] | None:
        """The newest task definition of a queue's workers; None when the queue was never deployed."""
        try:
            return self.definition(f"{self.config.prefix}-worker-{queue}")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ClientException":
                raise
            return None

    def live_containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each container that runs, or that the load metric would start next, with the name of what it belongs to."""
        references = {service["taskDefinition"] for service in self.services}
        references |= {task["taskDefinitionArn"] for task in self.tasks}
        workers = [self.worker(queue) for queue in self.config.workers]
        definitions = [self.definition(reference) for reference in sorted(references)]
        seen = set()
        for definition in [*definitions, *(worker for worker in workers if worker is not None)]:
            if definition["taskDefinitionArn"] not in seen:
                seen.add(definition["taskDefinitionArn"])
                name = (
                    f"{definition['family'].removeprefix(self.config.prefix + '-')}:{definition['revision']}"
                )
                for container in definition["containerDefinitions"]:
                    yield name, container

    @cached_property
    def database(self) -> dict[str, Any]:
        """The DB instance, as described."""
        identifier = self.place.output("storage", "DatabaseIdentifier")
        answer = self.client("rds").describe_db_instances(DBInstanceIdentifier=identifier)
        return dict(answer["DBInstances"][0])

    @cached_property
    def pointer(self) -> str:
        """The live bundle version, or `none`."""
        return self._parameter(self.place.output("delivery", "PointerParameter"), "none")

    @cached_property
    def sleep_state(self) -> str:
        """`awake`, or where it is on the way to sleep or back."""
        return self._parameter(f"{self.config.ssm_prefix}/sleep/state", "awake")

    def _parameter(self, name: str, default: str) -> str:
        """What something has written there, the default before its first time."""
        ssm = self.client("ssm")
        try:
            return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        except ssm.exceptions.ParameterNotFound:
            return default

    def metric(
        self,
        namespace: str,
        name: str,
        dimensions: dict[str, str],
        statistic: str,
        *,
        over: timedelta,
    ) -> list[float]:
        """One value for each minute of the time before now that has data, oldest first."""
        answer = self.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=self.now - over,
            EndTime=self.now,
            Period=60,
            Statistics=[statistic],
        )
        points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
        return [float(point[statistic]) for point in points]
