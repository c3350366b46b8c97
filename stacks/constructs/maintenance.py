"""Keeps the metadata database small: once a day a task removes what is older than the environment keeps."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from stacks.constructs.sleep import cron
from stacks.network import NetworkStack
from stacks.sections import Sleep
from stacks.waivers import policy_of, waive

# In UTC: before most schedules, and outside the hours of most databases' maintenance.
NIGHT = "03:30"
# RDS takes up to ten minutes to start, the services a few more.
WAKE_MINUTES = 30
LAST_MINUTE = 24 * 60 - 1


class Maintenance(Construct):
    """A schedule that runs the definition's task: every night, or soon after an environment that sleeps has woken."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        definition: ecs.TaskDefinition,
        cluster: ecs.ICluster,
        network: NetworkStack,
        sleep: Sleep,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        # Any revision of the family: a schedule must not fail while a deployment changes it.
        family = stack.format_arn(
            service="ecs", resource="task-definition", resource_name=f"{definition.family}"
        )
        role = iam.Role(
            self,
            "Role",
            description="Of the nightly clean-up's schedule",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
            ),
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["ecs:RunTask"],
                resources=[family, f"{family}:*"],
                conditions={"ArnEquals": {"ecs:cluster": cluster.cluster_arn}},
            )
        )
        role.add_to_policy(pass_roles_of(definition))
        waive(policy_of(role), "Any revision of exactly the clean-up's family", "AwsSolutions-IAM5")
        scheduler.CfnSchedule(
            self,
            "EveryNight",
            description="Removes old metadata",
            schedule_expression=daily(sleep),
            schedule_expression_timezone=sleep.time_zone if sleep.wake else "UTC",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=cluster.cluster_arn,
                role_arn=role.role_arn,
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(maximum_retry_attempts=0),
                ecs_parameters=scheduler.CfnSchedule.EcsParametersProperty(
                    task_definition_arn=family,
                    launch_type="FARGATE",
                    task_count=1,
                    network_configuration=scheduler.CfnSchedule.NetworkConfigurationProperty(
                        awsvpc_configuration=scheduler.CfnSchedule.AwsVpcConfigurationProperty(
                            subnets=network.service_subnet_ids,
                            security_groups=[network.groups.airflow.security_group_id],
                            assign_public_ip="ENABLED" if network.assigns_public_ip else "DISABLED",
                        )
                    ),
                ),
            ),
        )


def daily(sleep: Sleep) -> str:
    """When the task runs: its database must be awake then."""
    if sleep.wake is None:
        return cron(NIGHT, "*")
    hour, minute = map(int, sleep.wake.split(":"))
    # Not beyond midnight, where the weekday would be another one.
    at = min(hour * 60 + minute + WAKE_MINUTES, LAST_MINUTE)
    return cron(f"{at // 60:02}:{at % 60:02}", ",".join(sleep.weekdays))


def pass_roles_of(definition: ecs.TaskDefinition) -> iam.PolicyStatement:
    """May hand exactly this definition's two roles to ECS, and to nothing else."""
    return iam.PolicyStatement(
        actions=["iam:PassRole"],
        resources=[definition.task_role.role_arn, definition.obtain_execution_role().role_arn],
        conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
    )
