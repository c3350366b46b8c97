"""Who may do what: no broad grant, and none missing that AWS asks for when a task starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stacks.aws_rules import reference
from stacks.aws_rules.templates import Finding, Resource, Templates, as_list

# Actions for which AWS has no resource, from the service authorization reference; a condition narrows those with True.
# https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
WITHOUT_RESOURCE = {
    "autoscaling:DescribeAutoScalingGroups": False,
    "cloudwatch:PutMetricData": True,
    "ec2:AssignPrivateIpAddresses": False,
    "ec2:CreateNetworkInterface": False,
    "ec2:DescribeInstances": False,
    "ec2:DeleteNetworkInterface": False,
    "ec2:DeleteNetworkInterfacePermission": False,
    "ec2:DescribeDhcpOptions": False,
    "ec2:DescribeNetworkInterfaces": False,
    "ec2:DescribeSecurityGroups": False,
    "ec2:DescribeSubnets": False,
    "ec2:DescribeVpcs": False,
    "ec2:UnassignPrivateIpAddresses": False,
    "ecr:GetAuthorizationToken": False,
    "ecs:DeregisterTaskDefinition": False,
    "ecs:DescribeTaskDefinition": False,
    "ecs:DescribeTasks": True,
    "ecs:DiscoverPollEndpoint": False,
    "ecs:ListServices": True,
    "ecs:ListTasks": True,
    "events:ListRules": False,
    "sagemaker:ListEndpoints": False,
    "sagemaker:ListHyperParameterTuningJobs": False,
    "sagemaker:ListNotebookInstances": False,
    "sagemaker:ListProcessingJobs": False,
    "sagemaker:ListTrainingJobs": False,
    "sagemaker:ListTransformJobs": False,
    "ssm:UpdateInstanceInformation": False,
    "ssmmessages:CreateControlChannel": False,
    "ssmmessages:CreateDataChannel": False,
    "ssmmessages:OpenControlChannel": False,
    "ssmmessages:OpenDataChannel": False,
}
MANAGED = {
    "service-role/AWSCodeDeployRole",
    "service-role/AWSLambdaBasicExecutionRole",
    "service-role/AmazonRDSEnhancedMonitoringRole",
    "service-role/AmazonEC2ContainerServiceforEC2Role",
}
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
# What a reference to a resource of CloudFormation can be to IAM, by the service in its type.
SERVICES = {
    "AutoScaling": ("autoscaling",),
    "CodeDeploy": ("codedeploy",),
    "ECR": ("ecr",),
    "ECS": ("ecs",),
    "EFS": ("elasticfilesystem",),
    "IAM": ("iam", "sts"),
    "KMS": ("kms",),
    "Lambda": ("lambda",),
    "Logs": ("logs",),
    "RDS": ("rds",),
    "S3": ("s3",),
    "SNS": ("sns",),
    "SQS": ("sqs",),
    "SageMaker": ("sagemaker",),
    "SecretsManager": ("secretsmanager",),
    "StepFunctions": ("states",),
}
POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
ROLE = "AWS::IAM::Role"


@dataclass(frozen=True, eq=False)
class Statement:
    """One `Allow` statement of a policy, and the roles that have it."""

    policy: Resource
    roles: tuple[Resource, ...]
    body: dict[str, Any]

    @property
    def actions(self) -> list[str]:
        return [str(action) for action in as_list(self.body.get("Action"))]

    @property
    def resources(self) -> list[Any]:
        return as_list(self.body.get("Resource"))


@lru_cache(maxsize=1)
def statements(templates: Templates) -> tuple[Statement, ...]:
    """Every `Allow` statement of every identity policy, inline ones of roles too."""
    return tuple(_statements(templates))


def _statements(templates: Templates) -> Iterator[Statement]:
    for policy in templates.of(*POLICIES, ROLE):
        inline = policy.type == ROLE
        roles = (
            (policy,)
            if inline
            else tuple(
                role
                for value in as_list(policy.properties.get("Roles"))
                if (role := templates.target(policy.stack, value)) is not None
            )
        )
        documents = (
            [item["PolicyDocument"] for item in as_list(policy.properties.get("Policies"))]
            if inline
            else [policy.properties["PolicyDocument"]]
        )
        for document in documents:
            for body in as_list(document["Statement"]):
                if body["Effect"] == "Allow":
                    yield Statement(policy, roles, body)


def allowed(templates: Templates, role: Resource, action: str) -> list[tuple[str, Statement]]:
    """The resources (as text) on which a role may do something, each with its statement."""
    return [
        (templates.text(statement.policy.stack, resource), statement)
        for statement in statements(templates)
        if role in statement.roles and action in statement.actions
        for resource in statement.resources
    ]


def no_wildcard(templates: Templates) -> Iterator[Finding]:
    """No `*` in an action; `Resource: *` only where AWS has nothing narrower."""
    for statement in statements(templates):
        for action in statement.actions:
            if "*" in action:
                yield statement.policy.finding(
                    "IAM-ACTION", f"allows {action}", "Name the actions that are used, one by one"
                )
        if "*" not in statement.resources:
            continue
        for action in statement.actions:
            conditioned = WITHOUT_RESOURCE.get(action)
            if conditioned is None:
                yield statement.policy.finding(
                    "IAM-RESOURCE", f"allows {action} on every resource", "Name the resources"
                )
            elif conditioned and "Condition" not in statement.body:
                yield statement.policy.finding(
                    "IAM-RESOURCE", f"allows {action} without a condition", "Narrow it by a condition key"
                )


def grants_apply(templates: Templates) -> Iterator[Finding]:
    """A grant that no request can match is a permission that is missing, and looks as if it were there."""
    for statement in statements(templates):
        resources = [templates.text(statement.policy.stack, item) for item in statement.resources]
        for action in (action for action in statement.actions if "*" not in action):
            if not reference.is_action(action):
                yield statement.policy.finding(
                    "IAM-NO-ACTION",
                    f"allows {action}, which AWS doesn't know",
                    "IAM's names differ from the API's now and then: see the service authorization reference",
                )
            elif "*" in resources:
                continue
            elif not reference.takes_resource(action):
                yield statement.policy.finding(
                    "IAM-GRANT",
                    f"allows {action} on {', '.join(resources)}, but it takes no resource",
                    "AWS answers AccessDenied: allow it on * in a statement of its own",
                )
            elif not any(_can_be(templates, action, resource) for resource in resources):
                yield statement.policy.finding(
                    "IAM-GRANT",
                    f"allows {action} on {', '.join(resources)}, none of which is a resource of it",
                    "AWS answers AccessDenied: name what the action works on",
                )


def _can_be(templates: Templates, action: str, resource: str) -> bool:
    """Whether an action can be done on what a statement names; what isn't known yet may be anything of its service."""
    referred = templates.referred(resource)
    if referred is not None:
        return action.partition(":")[0] in SERVICES.get(referred.type.split("::")[1], ()) and (
            reference.fits_in_bucket(action, resource)
        )
    patterns = reference.resource_patterns(action)
    told = re.sub(r"<[^>]*>|\$\{[^}]*\}", "/", resource)
    return reference.fits_in_bucket(action, resource) and (
        not patterns or any(reference.same_arn(told, pattern) for pattern in patterns)
    )


def managed_policies(templates: Templates) -> Iterator[Finding]:
    """AWS's own policies are broad: only the few that a service itself asks for."""
    for role in templates.of(ROLE):
        for arn in as_list(role.properties.get("ManagedPolicyArns")):
            text = templates.text(role.stack, arn)
            if ":aws:policy/" in text and text.split(":aws:policy/")[1] not in MANAGED:
                yield role.finding("IAM-MANAGED", f"has AWS's policy {text}", "Write out what is needed")


def trust(templates: Templates) -> Iterator[Finding]:
    """A role is assumed by services, and by the one that uses it."""
    users = dict(_users_of_roles(templates))
    for role in templates.of(ROLE):
        services: set[str] = set()
        for statement in as_list(role.properties["AssumeRolePolicyDocument"]["Statement"]):
            principal = statement["Principal"]
            if not isinstance(principal, dict) or "Service" not in principal:
                yield role.finding(
                    "IAM-TRUST", f"trusts {json.dumps(principal)}", "Trust the service that uses the role"
                )
                continue
            services |= {str(service) for service in as_list(principal["Service"])}
        wanted = users.get(role)
        if wanted and services and wanted not in services:
            yield role.finding("IAM-TRUST", f"is used by {wanted}, but trusts {', '.join(sorted(services))}", f"Trust {wanted}")  # fmt: skip


def _users_of_roles(templates: Templates) -> Iterator[tuple[Resource, str]]:
    for resource_type, keys, service in (
        ("AWS::ECS::TaskDefinition", ("TaskRoleArn", "ExecutionRoleArn"), "ecs-tasks.amazonaws.com"),
        ("AWS::Lambda::Function", ("Role",), "lambda.amazonaws.com"),
        ("AWS::CodeDeploy::DeploymentGroup", ("ServiceRoleArn",), "codedeploy.amazonaws.com"),
    ):
        for resource in templates.of(resource_type):
            for key in keys:
                role = templates.target(resource.stack, resource.properties.get(key))
                if role is not None:
                    yield role, service


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


RULES = (
    no_wildcard,
    grants_apply,
    managed_policies,
    trust,
    pass_role,
    database_log_in,
    job_grants,
    lambda_grants,
)
