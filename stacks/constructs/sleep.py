"""Sleep and wake: a function outside the VPC that takes the steps, and one inside that looks into the database."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.bastion import CODEDEPLOY_TAG
from stacks.constructs.parameters import parameter_arn, read_and_write
from stacks.constructs.python_function import PythonFunction
from stacks.waivers import policy_of, waive

# Every stack, the ones that an environment may not have included.
STACKS = ("network", "storage", "airflow", "delivery", "scaling", "workflows", "tracking")
# Clients of nine services take 90 MiB and half a second of a whole CPU, and Lambda gives CPU by the memory (1769 MiB
# are one): with its default of 128 MiB the function would run out of memory or of time. The observer has one client.
OBSERVER_MEMORY_MIB = 256
SLEEPER_MEMORY_MIB = 512
PARAMETERS = ("state", "wanted", "memory")
LISTED = (
    "TrainingJobs",
    "ProcessingJobs",
    "TransformJobs",
    "HyperParameterTuningJobs",
    "NotebookInstances",
    "Endpoints",
)


class Sleep(Construct):
    """`function`: invoked every minute, on the environment's schedule, and by the command line.

    `in_vpc` are the properties of a function that reaches the database.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        cluster: str,
        database_arn: str,
        database_identifier: str,
        in_vpc: dict[str, Any],
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._stack = cdk.Stack.of(self)
        self.observer = PythonFunction(
            self,
            "Observer",
            name="sleep",
            entry="observe",
            timeout=cdk.Duration.seconds(30),
            memory_size=OBSERVER_MEMORY_MIB,
            retry_attempts=0,
            **in_vpc,
        ).function
        self.function = PythonFunction(
            self,
            "Sleeper",
            name="sleep",
            entry="handler",
            timeout=cdk.Duration.minutes(1),
            memory_size=SLEEPER_MEMORY_MIB,
            retry_attempts=0,
            environment={
                "UPDRAFT_PREFIX": config.prefix,
                "UPDRAFT_SSM_PREFIX": config.ssm_prefix,
                "UPDRAFT_CLUSTER": cluster,
                "UPDRAFT_DATABASE_IDENTIFIER": database_identifier,
                "UPDRAFT_BASTION_TAG": CODEDEPLOY_TAG,
                "UPDRAFT_APPLICATION": f"{config.prefix}-dags",
                "UPDRAFT_DEPLOYMENT_GROUP": f"{config.prefix}-bastion",
                "UPDRAFT_OBSERVER": self.observer.function_name,
                "UPDRAFT_STACKS": ",".join(f"{config.prefix}-{name}" for name in STACKS),
            },
        ).function
        self.observer.grant_invoke(self.function)
        for statement in [
            *self._service_statements(cluster),
            *self._instance_statements(database_arn),
            *self._looking_statements(),
        ]:
            self.function.add_to_role_policy(statement)
        self._allow_parameters()
        self._build_schedules()
        alarm = cloudwatch.Alarm(
            self,
            "Errors",
            metric=self.function.metric_errors(period=cdk.Duration.minutes(15)),
            threshold=10,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description="Sleep and wake fail: the environment stays as it is",
        )
        waive(
            alarm,
            "Whom to wake is the account's own: subscribe to the alarm's state change in EventBridge",
            "NIST.800.53.R5-CloudWatchAlarmAction",
        )
        waive(
            policy_of(self.observer.role),
            "Network interfaces take no resource",
            "AwsSolutions-IAM5[Resource::*]",
        )
        waive(
            policy_of(self.function.role),
            "This environment's services, tasks, rules and stacks, and its bastion by a tag, whose ids aren't known "
            "before; and what takes no resource: ecs:ListServices and ecs:ListTasks (within the cluster), "
            "ec2:DescribeInstances, events:ListRules, SageMaker's lists",
            "AwsSolutions-IAM5",
        )

    def _allow_parameters(self) -> None:
        names = [f"{self._config.ssm_prefix}/sleep/{name}" for name in PARAMETERS]
        self.function.add_to_role_policy(
            read_and_write(*(parameter_arn(self._stack, name) for name in names))
        )

    def _build_schedules(self) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Of the schedules of sleep and wake",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": self._stack.account}},
            ),
        )
        role.add_to_policy(
            iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[self.function.function_arn])
        )
        self._build_schedule("EveryMinute", "rate(1 minute)", "{}", role)
        sleep = self._config.sleep
        if sleep.at is not None and sleep.wake is not None:
            self._build_schedule("Evening", cron(sleep.at, "*"), '{"command": "sleep"}', role)
            self._build_schedule(
                "Morning", cron(sleep.wake, ",".join(sleep.weekdays)), '{"command": "wake"}', role
            )

    def _build_schedule(self, construct_id: str, expression: str, event: str, role: iam.Role) -> None:
        scheduler.CfnSchedule(
            self,
            construct_id,
            schedule_expression=expression,
            schedule_expression_timezone=self._config.sleep.time_zone,
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                input=event,
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_retry_attempts=0 if expression.startswith("rate") else 5
                ),
            ),
        )

    def _service_statements(self, cluster: str) -> list[iam.PolicyStatement]:
        arn = self._stack.format_arn(service="ecs", resource="cluster", resource_name=cluster)
        in_cluster = {"ArnEquals": {"ecs:cluster": arn}}
        services = self._stack.format_arn(service="ecs", resource="service", resource_name=f"{cluster}/*")
        tasks = self._stack.format_arn(service="ecs", resource="task", resource_name=f"{cluster}/*")
        return [
            iam.PolicyStatement(
                actions=["ecs:DescribeServices", "ecs:UpdateService"],
                resources=[services],
                conditions=in_cluster,
            ),
            iam.PolicyStatement(actions=["ecs:DescribeTasks"], resources=[tasks], conditions=in_cluster),
            # AWS has no narrower resource for listing than the condition on the cluster.
            iam.PolicyStatement(
                actions=["ecs:ListServices", "ecs:ListTasks"], resources=["*"], conditions=in_cluster
            ),
        ]

    def _instance_statements(self, database_arn: str) -> list[iam.PolicyStatement]:
        instances = self._stack.format_arn(service="ec2", resource="instance", resource_name="*")
        return [
            iam.PolicyStatement(
                actions=["rds:DescribeDBInstances", "rds:StartDBInstance", "rds:StopDBInstance"],
                resources=[database_arn],
            ),
            # By its tag: with its id, which another stack would have to export, it could never be replaced.
            iam.PolicyStatement(
                actions=["ec2:StartInstances", "ec2:StopInstances"],
                resources=[instances],
                conditions={"StringEquals": {f"aws:ResourceTag/{CODEDEPLOY_TAG}": self._config.prefix}},
            ),
            # AWS has nothing narrower for describing instances.
            iam.PolicyStatement(actions=["ec2:DescribeInstances"], resources=["*"]),
        ]

    def _looking_statements(self) -> list[iam.PolicyStatement]:
        prefix, stack = self._config.prefix, self._stack
        rules = stack.format_arn(service="events", resource="rule", resource_name=f"{prefix}-*")
        group = stack.format_arn(
            service="codedeploy",
            resource="deploymentgroup",
            resource_name=f"{prefix}-dags/{prefix}-bastion",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        stacks = [
            stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{prefix}-{name}/*")
            for name in STACKS
        ]
        return [
            iam.PolicyStatement(actions=["events:EnableRule", "events:DisableRule"], resources=[rules]),
            # AWS documents no resource for listing rules.
            iam.PolicyStatement(actions=["events:ListRules"], resources=["*"]),
            iam.PolicyStatement(actions=["codedeploy:ListDeployments"], resources=[group]),
            iam.PolicyStatement(actions=["cloudformation:DescribeStacks"], resources=stacks),
            # SageMaker has nothing narrower for its lists.
            iam.PolicyStatement(actions=[f"sagemaker:List{kind}" for kind in LISTED], resources=["*"]),
        ]


def cron(time: str, weekdays: str) -> str:
    """A schedule's expression for a time of day (`HH:MM`) on these weekdays (`MON,TUE`, or `*`)."""
    hour, minute = time.split(":")
    return f"cron({int(minute)} {int(hour)} ? * {weekdays} *)"
