"""Deploys the application on ECS: a task of its own is tried first, and only then does the service move.

The service then starts the new tasks beside the old ones, gives them the traffic when they are healthy, and stops the
old ones; its circuit breaker goes back to them where the new ones don't get up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowException

from pets.smoke import SmokeError, try_out

POLL_SECONDS = 2
HEALTHY_SECONDS = 300
STEADY_SECONDS = 900
# What DescribeTaskDefinition tells, and RegisterTaskDefinition takes.
KEPT = (
    "family",
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "containerDefinitions",
    "volumes",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "runtimePlatform",
)
log = logging.getLogger(__name__)
Settings = Mapping[str, Any]


def deploy(
    settings: Settings, *, image: str, picture: bytes, label: str, marker: str, tags: list[dict[str, str]]
) -> dict[str, Any]:
    """Bring an image into service; returns its task definition and what it answered.

    Raises AirflowException when it can't be brought up or tells the picture wrong: what served before still does.
    `marker` is put on the task that is tried (`startedBy`), so that it is found whoever dies.
    """
    client = boto3.client("ecs")
    before = _serving(client, settings)
    definition = register(client, settings, image=image, tags=tags)
    try:
        answer = _try_candidate(client, settings, definition, picture, label=label, marker=marker)
        _move(client, settings, definition, tags=tags, exists=before is not None)
        _try_service(client, settings, picture, label=label, before=before)
    except BaseException:
        if _serving(client, settings) != definition:
            client.deregister_task_definition(taskDefinition=definition)
        raise
    return {"task_definition": definition, "replaced": before, "example": dict(answer)}


def register(client: Any, settings: Settings, *, image: str, tags: list[dict[str, str]]) -> str:
    """The next revision of the template's family, with an image in its place; returns its ARN."""
    template = client.describe_task_definition(taskDefinition=settings["template"])["taskDefinition"]
    request = {key: template[key] for key in KEPT if key in template}
    request["containerDefinitions"] = [
        {**container, "image": image} for container in template["containerDefinitions"]
    ]
    arn: str = client.register_task_definition(**request, tags=_lower(tags))["taskDefinition"][
        "taskDefinitionArn"
    ]
    return arn


def stop_candidates(settings: Settings, marker: str) -> list[str]:
    """Stop the tasks that a deployment left behind, and return their ARNs."""
    client = boto3.client("ecs")
    arns: list[str] = client.list_tasks(cluster=settings["cluster"], startedBy=marker)["taskArns"]
    for arn in arns:
        client.stop_task(cluster=settings["cluster"], task=arn, reason="its deployment has ended")
    return arns


def _try_candidate(
    client: Any, settings: Settings, definition: str, picture: bytes, *, label: str, marker: str
) -> Mapping[str, Any]:
    stop_candidates(settings, marker)
    started = client.run_task(
        cluster=settings["cluster"],
        taskDefinition=definition,
        launchType="FARGATE",
        startedBy=marker,
        networkConfiguration=_network(settings),
    )
    if not started["tasks"]:
        raise AirflowException(f"ECS starts no task: {started['failures']}")
    arn = started["tasks"][0]["taskArn"]
    try:
        address = _wait_healthy(client, settings, arn)
        answer = try_out(f"http://{address}:{settings['port']}", picture, label=label)
    except SmokeError as error:
        raise AirflowException(f"the new application failed its smoke test: {error}") from error
    finally:
        client.stop_task(cluster=settings["cluster"], task=arn, reason="its smoke test has ended")
    log.info("the new application passed its smoke test: %s", answer)
    return answer


def _wait_healthy(client: Any, settings: Settings, arn: str) -> str:
    """The address of a task once it is healthy."""

    def look() -> str | None:
        [task] = client.describe_tasks(cluster=settings["cluster"], tasks=[arn])["tasks"]
        if task["lastStatus"] == "STOPPED" or task.get("desiredStatus") == "STOPPED":
            raise AirflowException(f"the new application ended: {_end_of(task)}")
        if task.get("healthStatus") == "UNHEALTHY":
            raise AirflowException("the new application is unhealthy")
        return _address(task) if task.get("healthStatus") == "HEALTHY" else None

    return str(_wait(look, HEALTHY_SECONDS, "the new application to be healthy"))


def _move(
    client: Any, settings: Settings, definition: str, *, tags: list[dict[str, str]], exists: bool
) -> None:
    """Make the revision the service's, and wait until it alone serves."""
    cluster, service = settings["cluster"], settings["service"]
    changing = {
        "cluster": cluster,
        "taskDefinition": definition,
        "desiredCount": settings["count"],
        "networkConfiguration": _network(settings),
        "deploymentConfiguration": {
            "minimumHealthyPercent": 100,
            "maximumPercent": 200,
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        },
    }
    if exists:
        client.update_service(service=service, **changing)
    else:
        client.create_service(
            serviceName=service,
            launchType="FARGATE",
            serviceRegistries=[{"registryArn": settings["registry_arn"]}],
            propagateTags="SERVICE",
            tags=_lower(tags),
            **changing,
        )

    def look() -> bool:
        found = _service(client, settings)
        assert found is not None, "it was just made or changed"
        own = [each for each in found["deployments"] if each["taskDefinition"] == definition]
        if not own or own[0]["rolloutState"] == "FAILED":
            raise AirflowException(f"the service went back to what it had: {_events(found)}")
        return bool(own[0]["status"] == "PRIMARY" and own[0]["rolloutState"] == "COMPLETED")

    _wait(look, STEADY_SECONDS, f"service {service} to be steady")


def _try_service(client: Any, settings: Settings, picture: bytes, *, label: str, before: str | None) -> None:
    """Ask by the name that everybody uses; go back where that fails."""
    url = f"http://{settings['name']}:{settings['port']}"

    def ask() -> Mapping[str, Any] | None:
        try:
            return try_out(url, picture, label=label)
        except SmokeError as error:
            problems.append(error)
            return None

    problems: list[SmokeError] = []
    try:
        # The name's old answers live on for some seconds.
        _wait(ask, 60, f"{url} to answer")
    except AirflowException as error:
        if before is not None:
            client.update_service(
                cluster=settings["cluster"], service=settings["service"], taskDefinition=before
            )
        raise AirflowException(f"the service failed its smoke test and goes back: {problems[-1]}") from error


def _serving(client: Any, settings: Settings) -> str | None:
    """The task definition of the service; None where there is no service yet."""
    found = _service(client, settings)
    return None if found is None else str(found["taskDefinition"])


def _service(client: Any, settings: Settings) -> Mapping[str, Any] | None:
    found = client.describe_services(cluster=settings["cluster"], services=[settings["service"]])["services"]
    return next((each for each in found if each["status"] == "ACTIVE"), None)


def _network(settings: Settings) -> dict[str, Any]:
    return {
        "awsvpcConfiguration": {
            "subnets": settings["subnet_ids"],
            "securityGroups": settings["security_group_ids"],
            "assignPublicIp": "ENABLED" if settings["assign_public_ip"] else "DISABLED",
        }
    }


def _address(task: Mapping[str, Any]) -> str:
    return next(
        detail["value"]
        for attachment in task["attachments"]
        for detail in attachment["details"]
        if detail["name"] == "privateIPv4Address"
    )


def _end_of(task: Mapping[str, Any]) -> str:
    codes = [container.get("exitCode") for container in task["containers"]]
    return f"{task.get('stoppedReason', 'no reason given')}, exit codes {codes}"


def _events(service: Mapping[str, Any]) -> str:
    return "; ".join(event["message"] for event in service["events"][:3])


def _lower(tags: list[dict[str, str]]) -> list[dict[str, str]]:
    """SageMaker's tags as ECS spells them."""
    return [{"key": tag["Key"], "value": tag["Value"]} for tag in tags]


def _wait(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `look` returns once it is true; raises AirflowException after the time is up."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AirflowException(f"waited {seconds:.0f} s for {what}")
        time.sleep(POLL_SECONDS)
    return found
