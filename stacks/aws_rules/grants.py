"""What AWS asks of a role before any code of ours runs: no grant of it is missing, and none is for more than that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from stacks.aws_rules.statements import Statement, allowed, statements
from stacks.aws_rules.templates import Finding, Resource, Templates

# https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
JOB_ACTIONS = (
    "cloudwatch:PutMetricData",
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
)
JOB_NETWORK_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
FUNCTION_NETWORK_ACTIONS = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)


def pass_role(templates: Templates) -> Iterator[Finding]:
    """`iam:PassRole` is for named roles and one service; and who starts a task or a job may pass all of its roles."""
    for statement in statements(templates):
        if "iam:PassRole" not in statement.actions:
            continue
        if any("*" in templates.text(statement.policy.stack, item) for item in statement.resources):
            yield statement.policy.finding("IAM-PASSROLE", "passes any role", "Name the roles")
        if "iam:PassedToService" not in json.dumps(statement.body.get("Condition", {})):
            yield statement.policy.finding(
                "IAM-PASSROLE", "passes a role to any service", "Add the condition iam:PassedToService"
            )
    yield from _run_task(templates)
    for statement in statements(templates):
        makes = [action for action in statement.actions if re.fullmatch(r"sagemaker:Create\w+Job", action)]
        for role in statement.roles if makes else ():
            if not any(
                "iam:PassRole" in other.actions for other in statements(templates) if role in other.roles
            ):
                yield statement.policy.finding(
                    "IAM-PASSROLE", f"allows {makes[0]} without iam:PassRole", "Allow passing the jobs' role"
                )


def _run_task(templates: Templates) -> Iterator[Finding]:
    for statement in statements(templates):
        if "ecs:RunTask" not in statement.actions:
            continue
        started = [
            definition
            for definition in templates.of("AWS::ECS::TaskDefinition")
            if any(_names(templates, statement, item, definition) for item in statement.resources)
        ]
        if not started:
            yield statement.policy.finding(
                "IAM-RUNTASK", "names no task definition of the environment", "Name the family with `:*`"
            )
        for role in statement.roles:
            passed = {resource for resource, _ in allowed(templates, role, "iam:PassRole")}
            for definition in started:
                for key in ("TaskRoleArn", "ExecutionRoleArn"):
                    wanted = templates.text(definition.stack, definition.properties.get(key))
                    if wanted not in passed:
                        yield statement.policy.finding(
                            "IAM-PASSROLE",
                            f"runs {definition.id}, but may not pass its {key}",
                            "RunTask answers AccessDenied: allow passing both roles",
                        )


def _names(templates: Templates, statement: Statement, resource: Any, definition: Resource) -> bool:
    if templates.target(statement.policy.stack, resource) is definition:
        return True
    text = templates.text(statement.policy.stack, resource)
    return f":task-definition/{definition.properties['Family']}:" in text


def database_log_in(templates: Templates) -> Iterator[Finding]:
    """RDS IAM log-in names the instance by `DbiResourceId`, and a user that the migration makes."""
    made = json.dumps([item.properties for item in templates.of("AWS::ECS::TaskDefinition")])
    for statement in statements(templates):
        if "rds-db:connect" not in statement.actions:
            continue
        for resource in statement.resources:
            text = templates.text(statement.policy.stack, resource)
            if ".DbiResourceId>" not in text:
                yield statement.policy.finding(
                    "RDS-IAM",
                    f"names the database as {text}",
                    "Take its DbiResourceId: AWS knows no other name",
                )
            user = text.rsplit("/", 1)[-1]
            if f'"Value": "{user}"' not in made:
                yield statement.policy.finding(
                    "RDS-IAM", f"logs in as {user}, whom no task makes", "Let the migration grant it rds_iam"
                )


def job_grants(templates: Templates) -> Iterator[Finding]:
    """What SageMaker does with the role that a job is given, before the job's program starts."""
    settings = " ".join(
        templates.text(parameter.stack, parameter.properties.get("Value"))
        for parameter in templates.of("AWS::SSM::Parameter")
    )
    wanted = JOB_ACTIONS + (JOB_NETWORK_ACTIONS if '"subnet_ids"' in settings else ())
    passed = {
        role
        for statement in statements(templates)
        if "iam:PassRole" in statement.actions and "sagemaker.amazonaws.com" in json.dumps(statement.body)
        for item in statement.resources
        if (role := templates.target(statement.policy.stack, item)) is not None
    }
    for role in passed:
        for action in (action for action in wanted if not allowed(templates, role, action)):
            yield role.finding(
                "SAGEMAKER-ROLE",
                f"is given to jobs, but may not {action}",
                "The job fails before its program starts: allow it",
            )


def lambda_grants(templates: Templates) -> Iterator[Finding]:
    """A function writes its own log group, and in a VPC makes its network interfaces."""
    for function in templates.of("AWS::Lambda::Function"):
        role = templates.target(function.stack, function.properties["Role"])
        if role is None or "AWSLambdaBasicExecutionRole" in json.dumps(role.properties):
            continue
        if not allowed(templates, role, "logs:PutLogEvents"):
            yield function.finding("LAMBDA-LOGS", "may not write its log", "Allow logs:PutLogEvents")
        for action in FUNCTION_NETWORK_ACTIONS if "VpcConfig" in function.properties else ():
            if not allowed(templates, role, action):
                yield function.finding(
                    "LAMBDA-VPC", "may not manage its network interfaces", f"Allow {action}"
                )


RULES = (pass_role, database_log_in, job_grants, lambda_grants)
