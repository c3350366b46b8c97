"""AWS's limits (`quotas.toml`, with the date of their check), held against the templates."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacks.aws_rules.network import EGRESS, INGRESS, rules_of
from stacks.aws_rules.statements import POLICIES, ROLE
from stacks.aws_rules.templates import Finding, Resource, Templates, as_list

QUOTAS: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "quotas.toml").read_text(encoding="utf-8")
)
RULE = "QUOTA"
# RDS keeps a part of the memory for itself, and some connections for its own tools.
MEMORY_LEFT = 0.9
RESERVED_CONNECTIONS = 5
# Sessions that a process keeps open at most: SQLAlchemy's pool of 5 with 10 more, as Airflow leaves it; a worker's
# slots have one each, for the result backend.
CONTROL_CONNECTIONS = 15


def _above(resource: Resource, what: str, value: int, quota: str, name: str) -> Iterator[Finding]:
    limit = int(QUOTAS[quota][name])
    if value > limit:
        yield resource.finding(RULE, f"has {value} {what}", f"AWS takes {limit} ({quota}.{name})")


def stacks(templates: Templates) -> Iterator[Finding]:
    """CloudFormation's limits of one template."""
    limits = QUOTAS["cloudformation"]
    for stack, template in templates.by_stack.items():
        for what, value in (
            ("resources", len(template.get("Resources", {}))),
            ("outputs", len(template.get("Outputs", {}))),
            ("parameters", len(template.get("Parameters", {}))),
            ("template_bytes", len(json.dumps(template))),
        ):
            if value > int(limits[what]):
                yield Finding(RULE, stack, "", f"has {value} {what}", f"CloudFormation takes {limits[what]}")


def policies(templates: Templates) -> Iterator[Finding]:
    """IAM counts a policy's characters without white space, all inline policies of a role together."""
    inline: dict[Resource, int] = {}
    for policy in templates.of(*POLICIES):
        size = len(
            json.dumps(_flat(templates, policy, policy.properties["PolicyDocument"]), separators=(",", ":"))
        )
        if policy.type == "AWS::IAM::ManagedPolicy":
            yield from _above(policy, "characters", size, "iam", "managed_policy_characters")
            continue
        for role in templates.targets(policy.stack, policy.properties.get("Roles")):
            inline[role] = inline.get(role, 0) + size
    for role, size in inline.items():
        yield from _above(role, "characters of inline policies", size, "iam", "inline_policy_characters")
    for role in templates.of(ROLE):
        attached = len(as_list(role.properties.get("ManagedPolicyArns"))) + sum(
            role in list(templates.targets(policy.stack, policy.properties.get("Roles")))
            for policy in templates.of("AWS::IAM::ManagedPolicy")
        )
        yield from _above(role, "managed policies", attached, "iam", "managed_policies_per_role")
        name = role.properties.get("RoleName")
        if isinstance(name, str):
            yield from _above(role, "characters in its name", len(name), "iam", "role_name_characters")


def _flat(templates: Templates, resource: Resource, value: Any) -> Any:
    """A document with its references as text of about their length."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::")):
            return templates.text(resource.stack, value)
        return {key: _flat(templates, resource, item) for key, item in value.items()}
    return [_flat(templates, resource, item) for item in value] if isinstance(value, list) else value


def network(templates: Templates) -> Iterator[Finding]:
    """Rules of a group, groups of a service, addresses of a region."""
    for kind in (INGRESS, EGRESS):
        count: dict[Resource, int] = {}
        for group, _, _ in rules_of(templates, kind):
            count[group] = count.get(group, 0) + 1
        for group, rules in count.items():
            yield from _above(group, "rules in one direction", rules, "vpc", "rules_per_group_and_direction")
    addresses = templates.of("AWS::EC2::EIP")
    for address in addresses[:1]:
        yield from _above(
            address, "addresses beside it", len(addresses), "vpc", "elastic_addresses_per_region"
        )
    for service in templates.of("AWS::ECS::Service"):
        found = service.properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        groups, subnets = as_list(found.get("SecurityGroups")), as_list(found.get("Subnets"))
        yield from _above(service, "security groups", len(groups), "ecs", "groups_per_service")
        yield from _above(service, "subnets", len(subnets), "ecs", "subnets_per_service")


def sizes(templates: Templates) -> Iterator[Finding]:
    """What must fit into one API call."""
    for definition in templates.of("AWS::ECS::TaskDefinition"):
        size = len(json.dumps(definition.properties))
        containers = as_list(definition.properties["ContainerDefinitions"])
        yield from _above(definition, "bytes", size, "ecs", "task_definition_bytes")
        yield from _above(definition, "containers", len(containers), "ecs", "containers_per_task_definition")
    for parameter in templates.of("AWS::SSM::Parameter"):
        if parameter.properties.get("Tier", "Standard") == "Standard":
            size = len(templates.text(parameter.stack, parameter.properties["Value"]).encode())
            yield from _above(parameter, "bytes", size, "ssm", "standard_parameter_bytes")
    for function in templates.of("AWS::Lambda::Function"):
        variables = function.properties.get("Environment", {}).get("Variables", {})
        size = sum(len(key) + len(templates.text(function.stack, value)) for key, value in variables.items())
        yield from _above(function, "bytes of environment", size, "lambda", "environment_bytes")
    for instance in templates.of("AWS::EC2::Instance"):
        user_data = instance.properties.get("UserData", {})
        text = templates.text(instance.stack, user_data.get("Fn::Base64", "") if user_data else "")
        yield from _above(instance, "bytes of user data", len(text.encode()), "ec2", "user_data_bytes")


def connections(templates: Templates) -> Iterator[Finding]:
    """What the control plane and the whole fleet keep open must fit the database's `max_connections`."""
    for database in templates.of("AWS::RDS::DBInstance"):
        allowed = max_connections(str(database.properties["DBInstanceClass"]))
        if allowed is None:
            continue
        tasks = sum(
            int(service.properties.get("DesiredCount", 1)) for service in templates.of("AWS::ECS::Service")
        )
        fleet = sum(
            int(queue["slots"]) * int(queue["max"])
            for function in templates.of("AWS::Lambda::Function")
            for queue in json.loads(_variable(function, "UPDRAFT_QUEUES") or "[]")
        )
        wanted = tasks * CONTROL_CONNECTIONS // 2 + fleet
        if wanted > allowed - RESERVED_CONNECTIONS:
            yield database.finding(
                "RDS-CONNECTIONS",
                f"takes about {allowed} connections; {tasks} services and {fleet} slots may want {wanted}",
                "Take a larger class, or fewer workers or slots",
            )


def _variable(function: Resource, name: str) -> str:
    value = function.properties.get("Environment", {}).get("Variables", {}).get(name, "")
    return value if isinstance(value, str) else ""


def max_connections(instance_class: str) -> int | None:
    """RDS's default for PostgreSQL; None for a class that the table doesn't hold."""
    rds = QUOTAS["rds"]
    gib = rds["memory_gib"].get(instance_class.removeprefix("db."))
    if gib is None:
        return None
    return min(int(gib * 2**30 * MEMORY_LEFT / rds["bytes_per_connection"]), int(rds["most_connections"]))


RULES = (stacks, policies, network, sizes, connections)
