"""The load metric: a Lambda that counts waiting and running tasks every few seconds and starts workers; and the
dashboard that shows what came of it."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.airflow import AirflowStack
from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_environment import METRICS_DATABASE_USER
from stacks.constructs.dashboard import Dashboard
from stacks.constructs.database_reader import reader_environment, reader_files
from stacks.constructs.parameters import parameter_arn, read_and_write
from stacks.constructs.python_function import PythonFunction
from stacks.constructs.sleep import Sleep
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

MEMORY_MIB = 256


class ScalingStack(cdk.Stack):
    """`function`, invoked every minute; it never stops a worker."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        storage: StorageStack,
        airflow: AirflowStack,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        in_vpc: dict[str, Any] = {
            "files": reader_files(config),
            "vpc": network.vpc,
            "vpc_subnets": network.service_subnets,
            "allow_public_subnet": network.assigns_public_ip,
            "security_groups": [network.groups.load_metric],
        }
        load_metric = PythonFunction(
            self,
            "LoadMetric",
            name="load_metric",
            entry="handler",
            timeout=cdk.Duration.minutes(1),
            memory_size=MEMORY_MIB,
            **in_vpc,
            environment=self._environment(config, network, storage, airflow),
            retry_attempts=0,
        )
        self.function = load_metric.function
        for queue in config.workers:
            self._build_record(config, queue)
        self._grant(config, storage, airflow)
        # A missed sample is made up for by the next one ten seconds later: a retry would only come too late.
        events.Rule(
            self,
            "EveryMinute",
            schedule=events.Schedule.rate(cdk.Duration.minutes(1)),
            targets=[targets.LambdaFunction(self.function, retry_attempts=0)],
        )
        alarm = cloudwatch.Alarm(
            self,
            "Errors",
            metric=self.function.metric_errors(period=cdk.Duration.minutes(5)),
            threshold=3,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description="The load metric fails: workers don't follow the load",
        )
        self.sleep = Sleep(
            self,
            "Sleep",
            config=config,
            cluster=airflow.cluster.cluster_name,
            database_arn=storage.database.instance_arn,
            database_identifier=storage.database.instance_identifier,
            in_vpc=in_vpc | {"environment": reader_environment(storage)},
        )
        storage.database.grant_connect(self.sleep.observer, METRICS_DATABASE_USER)
        Dashboard(self, "Dashboard", config=config, storage=storage)
        waive(
            alarm,
            "Whom to wake is the account's own: subscribe to the alarm's state change in EventBridge",
            "NIST.800.53.R5-CloudWatchAlarmAction",
        )
        cdk.CfnOutput(self, "LoadMetricFunctionName", value=self.function.function_name)
        cdk.CfnOutput(self, "LoadMetricLogGroup", value=load_metric.log_group.log_group_name)
        cdk.CfnOutput(self, "SleepFunctionName", value=self.sleep.function.function_name)

    def _environment(
        self, config: EnvironmentConfig, network: NetworkStack, storage: StorageStack, airflow: AirflowStack
    ) -> dict[str, str]:
        queues = [
            {
                "queue": queue,
                "task_definition": airflow.workers[queue].family,
                "slots": worker.concurrency,
                "min": worker.min,
                "max": worker.max,
                "start_seconds": worker.start_seconds,
                "spot_percent": worker.spot_percent,
                "capacity_provider": airflow.capacity_providers[queue],
            }
            for queue, worker in config.workers.items()
        ]
        return {
            "UPDRAFT_PROJECT": config.project,
            "UPDRAFT_ENVIRONMENT": config.environment,
            "UPDRAFT_CLUSTER": airflow.cluster.cluster_name,
            "UPDRAFT_SSM_PREFIX": config.ssm_prefix,
            **reader_environment(storage),
            "UPDRAFT_QUEUES": json.dumps(queues),
            "UPDRAFT_SUBNET_IDS": ",".join(network.service_subnet_ids),
            "UPDRAFT_SECURITY_GROUP_IDS": network.groups.airflow.security_group_id,
            "UPDRAFT_EXECUTE_COMMAND": str(config.execute_command).lower(),
            "UPDRAFT_ASSIGN_PUBLIC_IP": "ENABLED" if network.assigns_public_ip else "DISABLED",
        }

    def _build_record(self, config: EnvironmentConfig, queue: str) -> None:
        """What the function tells the workers of a queue: who stays (docs/architecture.md)."""
        record = ssm.StringParameter(
            self,
            f"Workers-{queue}",
            parameter_name=f"{config.ssm_prefix}/workers/{queue}",
            string_value="{}",
            description=f"Which workers of the queue {queue} stay; written by the load metric",
        )
        self.function.add_to_role_policy(read_and_write(record.parameter_arn))

    def _grant(self, config: EnvironmentConfig, storage: StorageStack, airflow: AirflowStack) -> None:
        in_cluster = {"ArnEquals": {"ecs:cluster": airflow.cluster.cluster_arn}}
        storage.database.grant_connect(self.function, METRICS_DATABASE_USER)
        families = [
            self.format_arn(
                service="ecs", resource="task-definition", resource_name=f"{config.prefix}-worker-{queue}:*"
            )
            for queue in config.workers
        ]
        worker_roles = [airflow.task_role.role_arn] + [
            worker.obtain_execution_role().role_arn for worker in airflow.workers.values()
        ]
        for statement in (
            iam.PolicyStatement(actions=["ecs:RunTask"], resources=families, conditions=in_cluster),
            # AWS has no narrower resource for listing tasks than the condition on the cluster.
            iam.PolicyStatement(
                actions=["ecs:ListTasks", "ecs:DescribeTasks"], resources=["*"], conditions=in_cluster
            ),
            # AWS has no resource for describing a task definition.
            iam.PolicyStatement(actions=["ecs:DescribeTaskDefinition"], resources=["*"]),
            iam.PolicyStatement(
                actions=["ssm:GetParameter"],
                resources=[parameter_arn(self, f"{config.ssm_prefix}/sleep/state")],
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=worker_roles,
                conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": config.project}},
            ),
        ):
            self.function.add_to_role_policy(statement)
        waive(
            policy_of(self.function.role),
            "Any revision of the worker's families, and what takes no resource: ecs:ListTasks (within the cluster), "
            "cloudwatch:PutMetricData (within the namespace), network interfaces",
            "AwsSolutions-IAM5",
        )
