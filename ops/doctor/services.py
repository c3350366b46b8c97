"""The services: running, healthy, deployed, reachable, and logged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError, require_awake

EXECUTION_API = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
CONTROL_PLANE = "control-plane"
STARTS_WITHIN = timedelta(minutes=10)
LONGEST_MIGRATION = timedelta(minutes=60)


def running(account: Account) -> Iterator[Finding]:
    """Every service wants at least one task, and has as many as it wants, healthy."""
    require_awake(account)
    for service in account.services:
        name, wanted = service["serviceName"], service["desiredCount"]
        if wanted == 0:
            yield Finding(
                f"service {name} is stopped: it wants 0 tasks",
                f"start it again: ./updraft deploy --environment {account.config.environment}",
            )
            continue
        own = [task for task in account.tasks if task.get("group") == f"service:{name}"]
        healthy = sum(task.get("healthStatus") == "HEALTHY" for task in own)
        settled_at = max(deployment["createdAt"] for deployment in service["deployments"])
        if healthy < wanted and account.now - settled_at > STARTS_WITHIN:
            yield Finding(
                f"service {name} has {healthy} healthy tasks of {wanted}, {len(own)} running",
                f"read why: ./updraft logs {name} --environment {account.config.environment}",
            )


def deployed(account: Account) -> Iterator[Finding]:
    """No service's newest deployment has failed or been rolled back."""
    for service in account.services:
        for deployment in service["deployments"]:
            if deployment.get("rolloutState") == "FAILED":
                reason = deployment.get("rolloutStateReason", "no reason given")
                yield Finding(
                    f"service {service['serviceName']}: the deployment of "
                    f"{deployment['taskDefinition'].rpartition('/')[2]} failed: {reason}",
                    f"read why, mend it and deploy again: ./updraft logs {service['serviceName']}",
                )


def execution_api(account: Account) -> Iterator[Finding]:
    """A worker's execution API: its name is registered, leads to the webserver's tasks, and the way is open."""
    require_awake(account)
    for queue in account.config.workers:
        worker = account.worker(queue)
        if worker is None:
            yield Finding(
                f"queue {queue} is in the environment's file, but its worker was never deployed",
                f"deploy it: ./updraft deploy --environment {account.config.environment}",
            )
            continue
        url = _variable(worker["containerDefinitions"][0], EXECUTION_API)
        host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        name, _, namespace = host.partition(".")
        if namespace != f"{account.config.prefix}.internal":
            yield Finding(
                f"workers of queue {queue} look for the execution API at {url}, which is no name of this environment "
                f"(they end in {account.config.prefix}.internal)",
                f"deploy again: ./updraft deploy --environment {account.config.environment}",
            )
            continue
        # In the merged topology the control plane's one service answers to the webserver's name.
        names = (name, CONTROL_PLANE)
        service = next((item for item in account.services if item["serviceName"] in names), None)
        if service is None:
            raise NotApplicableError(f"there is no service {name}")
        yield from _unregistered(account, service, host)
        yield from _closed(account, service, port)


def _unregistered(account: Account, service: dict[str, Any], host: str) -> Iterator[Finding]:
    arns = [registry["registryArn"] for registry in service.get("serviceRegistries", [])]
    discovery = account.client("servicediscovery")
    registered: set[str] = set()
    for arn in arns:
        answer = discovery.list_instances(ServiceId=arn.rpartition("/")[2])
        registered |= {item["Attributes"]["AWS_INSTANCE_IPV4"] for item in answer["Instances"]}
    own = [
        task
        for task in account.tasks
        if task.get("group") == f"service:{service['serviceName']}" and task.get("healthStatus") == "HEALTHY"
    ]
    addresses = {address for task in own if (address := _address(task))}
    if not registered & addresses:
        yield Finding(
            f"{host} leads nowhere: registered {sorted(registered) or 'nothing'}, healthy tasks at "
            f"{sorted(addresses) or 'none'}; workers can't reach the execution API and every task fails",
            f"bring the service up: ./updraft logs {service['serviceName']}; then ./updraft deploy",
        )


def _closed(account: Account, service: dict[str, Any], port: int) -> Iterator[Finding]:
    groups = service["networkConfiguration"]["awsvpcConfiguration"].get("securityGroups", [])
    name = account.place.output("scaling", "LoadMetricFunctionName")
    variables = account.client("lambda").get_function_configuration(FunctionName=name)["Environment"][
        "Variables"
    ]
    workers = set(variables["UPDRAFT_SECURITY_GROUP_IDS"].split(","))
    described = account.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"]
    for group in described:
        for rule in group["IpPermissions"]:
            sources = {pair["GroupId"] for pair in rule.get("UserIdGroupPairs", [])}
            if rule.get("FromPort", 0) <= port <= rule.get("ToPort", 65_535) and sources & workers:
                return
    yield Finding(
        f"no rule lets Airflow's tasks ({', '.join(sorted(workers))}) reach port {port} of {', '.join(groups)}: "
        "the execution API is unreachable from every worker",
        f"deploy the network stack again: ./updraft deploy --environment {account.config.environment}",
    )


def migration(account: Account) -> Iterator[Finding]:
    """The migration isn't stuck, and the last one that ECS remembers ended with 0."""
    family = f"{account.config.prefix}-migration"
    for task in account.list_tasks("RUNNING", family=family):
        age = account.now - task["createdAt"]
        if age > LONGEST_MIGRATION:
            yield Finding(
                f"a migration has been running for {age.total_seconds() / 60:.0f} minutes",
                "see what it waits for: ./updraft logs migration; an idle transaction of a client blocks it most often",
            )
    ended = account.list_tasks("STOPPED", family=family)
    if ended:
        last = max(ended, key=lambda task: task["createdAt"])
        codes = [container.get("exitCode") for container in last["containers"]]
        if any(codes):
            yield Finding(
                f"the last migration ended with {codes}: {last.get('stoppedReason', 'no reason given')}",
                "read its log (./updraft logs migration), mend it and deploy again",
            )


def log_groups(account: Account) -> Iterator[Finding]:
    """Every container writes to a log group that exists; without it, tasks don't start."""
    missing: dict[str, list[str]] = {}
    logs = account.client("logs")
    seen: dict[str, bool] = {}
    for owner, container in account.live_containers():
        group = container.get("logConfiguration", {}).get("options", {}).get("awslogs-group")
        if group and group not in seen:
            found = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
            seen[group] = any(item["logGroupName"] == group for item in found)
        if group and not seen[group]:
            missing.setdefault(group, []).append(owner)
    for group, owners in missing.items():
        yield Finding(
            f"log group {group} does not exist: {', '.join(owners)} can't start",
            f"make it again: aws logs create-log-group --log-group-name {group}; or destroy and deploy the stack",
        )


def _variable(container: dict[str, Any], name: str) -> str:
    for item in container.get("environment", []):
        if item["name"] == name:
            return str(item["value"])
    raise NotApplicableError(f"the worker's task definition sets no {name}")


def _address(task: dict[str, Any]) -> str | None:
    details = [detail for item in task.get("attachments", []) for detail in item["details"]]
    return next((item["value"] for item in details if item["name"] == "privateIPv4Address"), None)


def stacks(account: Account) -> Iterator[Finding]:
    """No stack's last change failed, and none has been under way for hours."""
    try:
        pages = account.client("cloudformation").get_paginator("describe_stacks").paginate()
        described = [stack for page in pages for stack in page["Stacks"]]
    except ClientError as error:
        raise NotApplicableError(f"CloudFormation does not answer: {error}") from error
    for stack in described:
        name, state = stack["StackName"], stack["StackStatus"]
        if not name.startswith(f"{account.config.prefix}-"):
            continue
        if state.endswith("FAILED") or "ROLLBACK" in state:
            yield Finding(
                f"stack {name} is {state}: {stack.get('StackStatusReason', 'no reason given')}",
                f"mend what it says and deploy again: ./updraft deploy --environment {account.config.environment}",
            )
        since = stack.get("LastUpdatedTime", stack["CreationTime"])
        if state.endswith("_IN_PROGRESS") and account.now - since > LONGEST_MIGRATION:
            yield Finding(
                f"stack {name} has been {state} since {since:%Y-%m-%d %H:%M} UTC",
                f"see what it waits for: aws cloudformation describe-stack-events --stack-name {name}",
            )


CHECKS = (
    Check("stacks", "the state of the CloudFormation stacks", stacks),
    Check("services", "the services' wanted, running and healthy tasks", running),
    Check("deployments", "the services' newest deployments", deployed),
    Check("execution-api", "the way from a worker to the execution API", execution_api),
    Check("migration", "the database migration", migration),
    Check("log-groups", "the log group of every container", log_groups),
)
