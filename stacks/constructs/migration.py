"""Runs the database migration as a one-off task in every deployment, before any service changes.

Where the schema changes, the services that work on it by themselves are stopped first (docs/upgrade.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import custom_resources as cr
from constructs import Construct

from stacks.config import ROOT
from stacks.constructs.maintenance import pass_roles_of
from stacks.constructs.python_function import PythonFunction
from stacks.network import NetworkStack
from stacks.waivers import policy_of, waive, waive_each

LONGEST_MIGRATION_MINUTES = 60
MEMORY_MIB = 256
# What has a schema of its own in the metadata database.
WITH_SCHEMA = ("apache-airflow", "apache-airflow-providers-fab")


class Migration(Construct):
    """A custom resource that changes with the task definition; whoever depends on it waits for the schema."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        definition: ecs.TaskDefinition,
        cluster: ecs.ICluster,
        network: NetworkStack,
        security_group: ec2.ISecurityGroup,
        services: Mapping[str, int],
    ) -> None:
        """`services`: those to stop while the schema changes, with their desired counts."""
        super().__init__(scope, construct_id)
        self.definition = definition
        start = self._build_function("Start", "on_event")
        check = self._build_function("Check", "is_complete")
        self._grant(start, check, definition, cluster, services)
        provider = cr.Provider(
            self,
            "Provider",
            on_event_handler=start,
            is_complete_handler=check,
            query_interval=cdk.Duration.seconds(5),
            total_timeout=cdk.Duration.minutes(LONGEST_MIGRATION_MINUTES),
        )
        self._waive(start, check, provider)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            service_token=provider.service_token,
            resource_type="Custom::DatabaseMigration",
            properties={
                "Cluster": cluster.cluster_name,
                "TaskDefinition": definition.task_definition_arn,
                "Subnets": network.service_subnet_ids,
                "SecurityGroups": [security_group.security_group_id],
                "AssignPublicIp": "ENABLED" if network.assigns_public_ip else "DISABLED",
                # CloudFormation hands every value over as text.
                "Services": {name: str(count) for name, count in services.items()},
                "Packages": packages_with_schema(),
            },
        )

    def _waive(self, start: lambda_.Function, check: lambda_.Function, provider: cr.Provider) -> None:
        waive(policy_of(start.role), "Any revision of exactly the migration's family", "AwsSolutions-IAM5")
        waive(
            policy_of(check.role),
            "Any revision of exactly the migration's family; the cluster's tasks: a task's id isn't known before",
            "AwsSolutions-IAM5",
        )
        waive_each(
            provider,
            "AWS::Lambda::Function",
            "Part of CDK's provider framework: runs only during a deployment, which sees its failures",
            "NIST.800.53.R5-LambdaConcurrency",
            "NIST.800.53.R5-LambdaDLQ",
            "NIST.800.53.R5-LambdaInsideVPC",
        )
        for child in ("framework-onEvent", "framework-isComplete", "framework-onTimeout"):
            role = provider.node.find_child(child).node.find_child("ServiceRole")
            waive(role, "CDK's provider framework writes its own logs by it", "AwsSolutions-IAM4")
            waive(policy_of(role), "Any version of exactly the two handlers", "AwsSolutions-IAM5")
        waiter = provider.node.find_child("waiter-state-machine")
        waive(
            policy_of(waiter.node.find_child("Role")),
            "Any version of exactly the framework's two functions",
            "AwsSolutions-IAM5",
        )
        waive(
            waiter,
            "CDK's provider framework: it only waits, and each of its steps is a function that logs",
            "AwsSolutions-SF1",
            "AwsSolutions-SF2",
        )

    def _build_function(self, construct_id: str, entry: str) -> lambda_.Function:
        return PythonFunction(
            self,
            construct_id,
            name="migration",
            entry=entry,
            timeout=cdk.Duration.minutes(1),
            memory_size=MEMORY_MIB,
        ).function

    def _grant(
        self,
        start: lambda_.Function,
        check: lambda_.Function,
        definition: ecs.TaskDefinition,
        cluster: ecs.ICluster,
        services: Mapping[str, int],
    ) -> None:
        in_cluster = {"ArnEquals": {"ecs:cluster": cluster.cluster_arn}}
        # Any revision: a rollback runs the old one while the policy already names the new, or the reverse.
        stack = cdk.Stack.of(self)
        family = stack.format_arn(
            service="ecs", resource="task-definition", resource_name=f"{definition.family}:*"
        )
        for function in (start, check):
            function.add_to_role_policy(
                iam.PolicyStatement(actions=["ecs:RunTask"], resources=[family], conditions=in_cluster)
            )
            function.add_to_role_policy(pass_roles_of(definition))
        tasks = stack.format_arn(service="ecs", resource="task", resource_name=f"{cluster.cluster_name}/*")
        check.add_to_role_policy(
            iam.PolicyStatement(actions=["ecs:DescribeTasks"], resources=[tasks], conditions=in_cluster)
        )
        named = [
            stack.format_arn(
                service="ecs", resource="service", resource_name=f"{cluster.cluster_name}/{name}"
            )
            for name in services
        ]
        check.add_to_role_policy(
            iam.PolicyStatement(
                actions=["ecs:DescribeServices", "ecs:UpdateService"], resources=named, conditions=in_cluster
            )
        )


def packages_with_schema() -> list[str]:
    """The packages of the image's lock that a newer image needs to know for taking the schema back, with versions."""
    lock = (ROOT / "docker" / "airflow" / "requirements.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    return [f"{package}=={pins[package]}" for package in WITH_SCHEMA]
