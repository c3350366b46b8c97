"""What ECS on Fargate takes, and what ends badly there although every API call succeeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from stacks.aws_rules.statements import allowed
from stacks.aws_rules.templates import Finding, Resource, Templates, as_list, is_true
from stacks.sizes import FARGATE_MEMORY_MIB

DEFINITION, SERVICE = "AWS::ECS::TaskDefinition", "AWS::ECS::Service"
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
NOT_ON_FARGATE = ("Devices", "MaxSwap", "SharedMemorySize", "Swappiness", "Tmpfs")
STOP_TIMEOUT_SECONDS = 120
EPHEMERAL_GIB = range(21, 201)
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html
HEALTH_SECONDS = {"Interval": (5, 300), "Timeout": (2, 60), "Retries": (1, 10), "StartPeriod": (0, 300)}
# CPU seconds that a service burns before it answers (8 s on two cores), at one vCPU; a task with less takes longer.
START_CPU_SECONDS = 16
# What the images hold besides Python, for health checks.
CHECKS = ("python",)
SECRET_NAME = re.compile(r"PASSWORD|SECRET(?!S)|FERNET|TOKEN|PRIVATE_KEY|ACCESS_KEY", re.IGNORECASE)
URL_WITH_PASSWORD = re.compile(r"^[a-z+]+://[^/\s:@]*:[^@\s/]+@")
WRITABLE_FOR_EXEC = {"/var/lib/amazon", "/var/log/amazon"}
LONGEST_DNS_TTL_SECONDS = 60


def _containers(templates: Templates) -> Iterator[tuple[Resource, dict[str, Any]]]:
    for definition in templates.of(DEFINITION):
        for container in as_list(definition.properties["ContainerDefinitions"]):
            yield definition, container


def _on_fargate(definition: Resource) -> bool:
    return "FARGATE" in as_list(definition.properties.get("RequiresCompatibilities"))


def fargate(templates: Templates) -> Iterator[Finding]:
    """CPU and memory pairs, network mode, scratch space, and parameters that Fargate refuses."""
    for definition in templates.of(DEFINITION):
        if not _on_fargate(definition):
            continue
        properties = definition.properties
        cpu, memory = int(properties.get("Cpu", 0)), int(properties.get("Memory", 0))
        if memory not in FARGATE_MEMORY_MIB.get(cpu, ()):
            yield definition.finding(
                "FARGATE-SIZE", f"has {cpu} CPU units and {memory} MiB", "Take a pair that Fargate has"
            )
        if properties.get("NetworkMode") != "awsvpc":
            yield definition.finding(
                "FARGATE-NETWORK",
                f"has network mode {properties.get('NetworkMode')}",
                "Fargate takes awsvpc alone",
            )
        scratch = properties.get("EphemeralStorage", {}).get("SizeInGiB")
        if scratch is not None and int(scratch) not in EPHEMERAL_GIB:
            yield definition.finding("FARGATE-STORAGE", f"asks for {scratch} GiB", "Ask for 21 to 200 GiB")
    for definition, container in _containers(templates):
        if not _on_fargate(definition):
            continue
        stop = container.get("StopTimeout")
        if stop is not None and int(stop) > STOP_TIMEOUT_SECONDS:
            yield definition.finding(
                "FARGATE-STOP", f"has a stop timeout of {stop} s", "Fargate ends at 120 s"
            )
        linux = container.get("LinuxParameters", {})
        refused = [name for name in NOT_ON_FARGATE if linux.get(name)]
        refused += ["Privileged"] if is_true(container.get("Privileged", False)) else []
        refused += [name for name in ("Links", "ExtraHosts", "DnsServers") if container.get(name)]
        refused += (
            ["Capabilities.Add"] if set(linux.get("Capabilities", {}).get("Add", [])) - {"SYS_PTRACE"} else []
        )
        for name in refused:
            yield definition.finding("FARGATE-PARAMETER", f"sets {name}", "Fargate refuses it: leave it out")


def health_checks(templates: Templates) -> Iterator[Finding]:
    """Within ECS's limits, by a command that the image has, and patient enough for the task's own CPU."""
    running = {
        templates.target(service.stack, service.properties.get("TaskDefinition"))
        for service in templates.of(SERVICE)
    }
    for definition, container in _containers(templates):
        check = container.get("HealthCheck")
        if check is None:
            if definition in running and is_true(container.get("Essential", True)):
                yield definition.finding(
                    "ECS-HEALTH", "has no health check", "Add one: a hung task looks fine"
                )
            continue
        for key, (lowest, highest) in HEALTH_SECONDS.items():
            value = check.get(key)
            if value is not None and not lowest <= int(value) <= highest:
                yield definition.finding(
                    "ECS-HEALTH", f"has health check {key} {value}", f"ECS takes {lowest} to {highest}"
                )
        command = as_list(check["Command"])
        if command[0] != "CMD" or command[1].split("/")[-1] not in CHECKS:
            yield definition.finding(
                "ECS-HEALTH",
                f"is checked by {' '.join(command)[:60]}",
                "The images hold Python and neither curl nor wget: use CMD and python -m runtime.health",
            )
        grace = int(check.get("StartPeriod", 0)) + int(check.get("Interval", 30)) * (
            int(check.get("Retries", 3)) - 1
        )
        needed = START_CPU_SECONDS * 1024 / int(definition.properties.get("Cpu", 1024))
        if grace < needed:
            yield definition.finding(
                "ECS-GRACE",
                f"is killed {grace} s after its start, and needs about {needed:.0f} s at its CPU",
                "Give it a longer start period",
            )


def secrets(templates: Templates) -> Iterator[Finding]:
    """Nothing secret in the clear; every ECS secret exists with its key, and the execution role may read it."""
    for definition, container in _containers(templates):
        for item in as_list(container.get("Environment")):
            value = item.get("Value")
            if (
                isinstance(value, str)
                and value
                and (SECRET_NAME.search(item["Name"]) or URL_WITH_PASSWORD.match(value))
                and not value.startswith(("/", "{{resolve:"))
            ):
                yield definition.finding(
                    "SECRET-IN-CLEAR", f"has {item['Name']} in the clear", "Make it an ECS secret"
                )
        role = templates.target(definition.stack, definition.properties.get("ExecutionRoleArn"))
        for item in as_list(container.get("Secrets")):
            yield from _secret(templates, definition, item, role)
    for function in templates.of("AWS::Lambda::Function"):
        for name, value in function.properties.get("Environment", {}).get("Variables", {}).items():
            if isinstance(value, str) and value and SECRET_NAME.search(name):
                yield function.finding(
                    "SECRET-IN-CLEAR", f"has {name} in the clear", "Read it from Secrets Manager"
                )


def _secret(
    templates: Templates, definition: Resource, item: dict[str, Any], role: Resource | None
) -> Iterator[Finding]:
    source = item["ValueFrom"]
    secret = next(iter(templates.targets(definition.stack, source)), None)
    if secret is None:
        return
    arn, _, suffix = templates.text(definition.stack, source).partition(">")
    key = suffix.split(":")[1] if suffix.startswith(":") else ""
    keys = secret_keys(templates, secret)
    if key and keys is not None and key not in keys:
        yield definition.finding(
            "SECRET-KEY",
            f"takes key {key} of {secret.id} for {item['Name']}, which has {', '.join(sorted(keys)) or 'no keys'}",
            "The task would never start: take a key that is there",
        )
    if role is not None and secret.type.startswith("AWS::SecretsManager"):
        readable = {resource for resource, _ in allowed(templates, role, "secretsmanager:GetSecretValue")}
        if f"{arn}>" not in readable:
            yield definition.finding(
                "SECRET-GRANT",
                f"takes {secret.id}, which its execution role may not read",
                "Grant reading it",
            )


def secret_keys(templates: Templates, secret: Resource) -> set[str] | None:
    """The JSON keys of a generated secret; None where they can't be known."""
    if secret.type == "AWS::SecretsManager::SecretTargetAttachment":
        inner = templates.target(secret.stack, secret.properties["SecretId"])
        own = secret_keys(templates, inner) if inner is not None else None
        attached = {"engine", "host", "port", "dbname", "dbInstanceIdentifier"}
        return None if own is None else own | attached
    generator = secret.properties.get("GenerateSecretString")
    if generator is None:
        return None
    if "GenerateStringKey" not in generator:
        return set()
    template = json.loads(templates.text(secret.stack, generator["SecretStringTemplate"]))
    return {*template, generator["GenerateStringKey"]}


def logs(templates: Templates) -> Iterator[Finding]:
    """The log group is in the templates, and the execution role may write it."""
    for definition, container in _containers(templates):
        configuration = container.get("LogConfiguration", {})
        if configuration.get("LogDriver") != "awslogs":
            yield definition.finding(
                "ECS-LOGS", f"{container['Name']} has no awslogs", "Send its output to a group"
            )
            continue
        group = templates.target(definition.stack, configuration["Options"].get("awslogs-group"))
        role = templates.target(definition.stack, definition.properties.get("ExecutionRoleArn"))
        if group is None:
            yield definition.finding(
                "ECS-LOGS",
                f"logs to {configuration['Options'].get('awslogs-group')}, which no stack makes",
                "The task would die before its container starts: make the group",
            )
        elif role is None or templates.text(group.stack, {"Fn::GetAtt": [group.id, "Arn"]}) not in {
            resource for resource, _ in allowed(templates, role, "logs:PutLogEvents")
        }:
            yield definition.finding(
                "ECS-LOGS",
                f"may not write {group.id}",
                "Let its execution role create streams and put events",
            )


def images(templates: Templates) -> Iterator[Finding]:
    """The execution role may pull, and tasks of one image run on one architecture."""
    architectures: dict[str, dict[str, Resource]] = {}
    for definition, container in _containers(templates):
        image = templates.text(definition.stack, container["Image"])
        if _on_fargate(definition):
            platform = definition.properties.get("RuntimePlatform", {}).get("CpuArchitecture", "X86_64")
            architectures.setdefault(image, {})[str(platform)] = definition
        role = templates.target(definition.stack, definition.properties.get("ExecutionRoleArn"))
        private = ".dkr.ecr." in image
        if private and (role is None or not allowed(templates, role, "ecr:BatchGetImage")):
            yield definition.finding("ECS-PULL", "may not pull its image", "Let its execution role pull")
    for image, found in architectures.items():
        if len(found) > 1:
            yield list(found.values())[-1].finding(
                "ECS-ARCHITECTURE",
                f"runs {image[-20:]} as {' and '.join(sorted(found))}",
                "An image is built for one architecture: exec format error on the other",
            )


def services(templates: Templates) -> Iterator[Finding]:
    """Deployments that can move and give up, workers that nobody scales in, `exec` that can work."""
    for service in templates.of(SERVICE):
        configuration = service.properties.get("DeploymentConfiguration", {})
        lowest = int(configuration.get("MinimumHealthyPercent", 100))
        highest = int(configuration.get("MaximumPercent", 200))
        if lowest >= 100 and highest <= 100:
            yield service.finding(
                "ECS-DEPLOYMENT",
                f"must keep {lowest} % and may have {highest} %",
                "Leave room: 100 and 200, or 0 and 100",
            )
        if not is_true(configuration.get("DeploymentCircuitBreaker", {}).get("Enable", False)):
            yield service.finding(
                "ECS-DEPLOYMENT",
                "has no circuit breaker",
                "A broken image would keep the stack waiting for hours",
            )
        if "ServiceConnectConfiguration" in service.properties:
            yield service.finding(
                "ECS-SERVICE-CONNECT",
                "uses Service Connect",
                "Workers are tasks without a service: use Cloud Map",
            )
        definition = templates.target(service.stack, service.properties.get("TaskDefinition"))
        for container in as_list(definition.properties["ContainerDefinitions"]) if definition else ():
            command = " ".join(map(str, as_list(container.get("Command"))))
            if "celery worker" in command:
                yield service.finding(
                    "ECS-WORKER",
                    "keeps workers as a service",
                    "Its scale-in kills busy ones, and protected ones block it: workers are tasks of their own",
                )
            mounted = {mount["ContainerPath"] for mount in as_list(container.get("MountPoints"))}
            if (
                is_true(container.get("ReadonlyRootFilesystem", False))
                and is_true(service.properties.get("EnableExecuteCommand", False))
                and not mounted >= WRITABLE_FOR_EXEC
            ):
                yield service.finding(
                    "ECS-EXEC",
                    "allows exec on a read-only root",
                    f"The SSM agent writes there: mount {', '.join(sorted(WRITABLE_FOR_EXEC))}",
                )


def scaling(templates: Templates) -> Iterator[Finding]:
    """Nobody but the task itself decides that a task ends."""
    for target in templates.of("AWS::ApplicationAutoScaling::ScalableTarget"):
        if target.properties.get("ServiceNamespace") == "ecs":
            yield target.finding(
                "ECS-SCALING",
                "scales a service",
                "ECS would choose which task dies: start tasks, and let them leave",
            )
    for policy in templates.of("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        if "ecs:UpdateTaskProtection" in json.dumps(policy.properties):
            yield policy.finding(
                "ECS-PROTECTION",
                "lets tasks protect themselves",
                "More protected tasks than the desired count block every deployment: workers leave by themselves",
            )


def names(templates: Templates) -> Iterator[Finding]:
    """A moved task is found again soon."""
    for service in templates.of("AWS::ServiceDiscovery::Service"):
        for record in as_list(service.properties.get("DnsConfig", {}).get("DnsRecords")):
            if int(record["TTL"]) > LONGEST_DNS_TTL_SECONDS:
                yield service.finding(
                    "CLOUD-MAP-TTL",
                    f"is cached for {record['TTL']} s",
                    f"At most {LONGEST_DNS_TTL_SECONDS} s",
                )


def migration_first(templates: Templates) -> Iterator[Finding]:
    """Airflow's services wait for the migration, and the migration for its task."""
    migrations = templates.of("Custom::DatabaseMigration")
    for service in templates.of(SERVICE):
        definition = templates.target(service.stack, service.properties.get("TaskDefinition"))
        is_airflow = definition is not None and '["airflow", ' in json.dumps(definition.properties)
        waits = as_list(service.body.get("DependsOn"))
        if is_airflow and not any(item.stack == service.stack and item.id in waits for item in migrations):
            yield service.finding(
                "MIGRATION",
                "doesn't wait for the migration",
                "Add the dependency: it would meet the old schema",
            )
    if migrations and not templates.of("AWS::StepFunctions::StateMachine"):
        yield migrations[0].finding(
            "MIGRATION", "isn't waited for", "Give its provider an is_complete handler: a task takes minutes"
        )


RULES = (fargate, health_checks, secrets, logs, images, services, scaling, names, migration_first)
