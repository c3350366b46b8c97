"""What policies and trust say: no broad grant, none that never applies, and no user but the one that is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from stacks.aws_rules import reference
from stacks.aws_rules.statements import ROLE, statements
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


RULES = (no_wildcard, grants_apply, managed_policies, trust)
