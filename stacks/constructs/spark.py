"""The Spark engines that an environment may have: a container of its own, or EMR Serverless.

Both run programs that a DAG puts into the data bucket, and reach nothing else. `settings` is what the DAG has to
know, `statements` what it needs to start and stop a run.
"""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_emrserverless as emrserverless
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.airflow import AirflowStack
from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_task import ARCHITECTURES, waive_task
from stacks.constructs.image_context import Image
from stacks.constructs.log_group import log_group
from stacks.constructs.maintenance import pass_roles_of
from stacks.constructs.private_bucket import allow_objects
from stacks.constructs.writable_folders import add_writable_folders
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

CONTAINER = "spark"
# Volumes of docker/spark/Dockerfile.
WRITABLE = ("/tmp", "/opt/spark")
# On every Spark task: what may stop one may stop no worker.
TAG = ("updraft:program", "spark")
# EMR's names for the processors.
EMR_ARCHITECTURES = {"arm64": "ARM64", "x86_64": "X86_64"}


class SparkTask(Construct):
    """Spark in local mode, in one Fargate task that lives as long as the program."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        storage: StorageStack,
        airflow: AirflowStack,
    ) -> None:
        super().__init__(scope, construct_id)
        self._cluster = airflow.cluster
        logs_name = f"{config.ssm_prefix}/spark"
        self._logs = log_group(self, "Logs", name=logs_name, retention_days=config.log_retention_days)
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
        allow_objects(role, storage.data)
        waive(policy_of(role), "The data bucket's objects", "AwsSolutions-IAM5")
        self.definition = self._build_definition(role, config)
        self.settings: dict[str, Any] = {
            "engine": "ecs",
            "cluster": airflow.cluster.cluster_name,
            # Any revision: a run takes the newest.
            "task_definition": self.definition.family,
            "container": CONTAINER,
            "log_group": logs_name,
            "tags": dict([TAG]),
            "subnet_ids": network.service_subnet_ids,
            "security_group_ids": [network.groups.jobs.security_group_id],
            "assign_public_ip": "ENABLED" if network.assigns_public_ip else "DISABLED",
        }

    def _build_definition(self, role: iam.Role, config: EnvironmentConfig) -> ecs.FargateTaskDefinition:
        size = config.spark.size
        image = Image(self, "Image", name="spark", config=config, architecture=config.architecture)
        definition = ecs.FargateTaskDefinition(
            self,
            "Definition",
            family=f"{config.prefix}-spark",
            cpu=size.cpu,
            memory_limit_mib=size.memory_mib,
            task_role=role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ARCHITECTURES[config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        container = definition.add_container(
            CONTAINER,
            image=ecs.ContainerImage.from_docker_image_asset(image.asset),
            environment={
                "SPARK_MEMORY_MIB": str(size.memory_mib),
                "AWS_REGION": config.region,
                "AWS_DEFAULT_REGION": config.region,
            },
            logging=ecs.LogDrivers.aws_logs(stream_prefix="spark", log_group=self._logs),
            readonly_root_filesystem=True,
            linux_parameters=ecs.LinuxParameters(self, "spark-linux", init_process_enabled=True),
        )
        add_writable_folders(definition, container, WRITABLE, execute_command=config.execute_command)
        waive_task(definition)
        return definition

    @property
    def statements(self) -> list[iam.PolicyStatement]:
        """Run, watch and stop this task, and read its log."""
        stack = cdk.Stack.of(self)
        in_cluster = {"ArnEquals": {"ecs:cluster": self._cluster.cluster_arn}}
        family = stack.format_arn(
            service="ecs", resource="task-definition", resource_name=self.definition.family
        )
        tasks = stack.format_arn(
            service="ecs", resource="task", resource_name=f"{self._cluster.cluster_name}/*"
        )
        return [
            iam.PolicyStatement(
                actions=["ecs:RunTask"], resources=[family, f"{family}:*"], conditions=in_cluster
            ),
            iam.PolicyStatement(
                actions=["ecs:TagResource"],
                resources=[tasks],
                conditions={"StringEquals": {"ecs:CreateAction": "RunTask"}},
            ),
            iam.PolicyStatement(actions=["ecs:DescribeTasks"], resources=[tasks], conditions=in_cluster),
            iam.PolicyStatement(
                actions=["ecs:StopTask"],
                resources=[tasks],
                conditions={**in_cluster, "StringEquals": {f"aws:ResourceTag/{TAG[0]}": TAG[1]}},
            ),
            # AWS has no narrower resource for listing tasks than the condition on the cluster.
            iam.PolicyStatement(actions=["ecs:ListTasks"], resources=["*"], conditions=in_cluster),
            pass_roles_of(self.definition),
            iam.PolicyStatement(
                actions=["logs:GetLogEvents"], resources=[f"{self._logs.log_group_arn}:log-stream:*"]
            ),
        ]


class SparkOnEmr(Construct):
    """An EMR Serverless application, off while no job runs, and the role of its jobs.

    It is in no VPC: its jobs reach S3 in their region, which is all that they need, and nothing else.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        storage: StorageStack,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        emr = config.spark.emr_serverless
        self.role = iam.Role(
            self,
            "JobRole",
            description="Of Spark jobs",
            assumed_by=iam.ServicePrincipal(
                "emr-serverless.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
            ),
        )
        allow_objects(self.role, storage.data)
        waive(policy_of(self.role), "The data bucket's objects", "AwsSolutions-IAM5")
        self.application = emrserverless.CfnApplication(
            self,
            "Application",
            name=f"{config.prefix}-spark",
            release_label=emr.release_label,
            type="SPARK",
            architecture=EMR_ARCHITECTURES[config.architecture],
            auto_start_configuration=emrserverless.CfnApplication.AutoStartConfigurationProperty(
                enabled=True
            ),
            auto_stop_configuration=emrserverless.CfnApplication.AutoStopConfigurationProperty(
                enabled=True, idle_timeout_minutes=emr.idle_minutes
            ),
            maximum_capacity=emrserverless.CfnApplication.MaximumAllowedResourcesProperty(
                cpu=f"{emr.max_vcpu} vCPU", memory=f"{emr.max_memory_gib} GB"
            ),
        )
        self.settings: dict[str, Any] = {
            "engine": "emr-serverless",
            "application_id": self.application.attr_application_id,
            "execution_role_arn": self.role.role_arn,
        }

    @property
    def statements(self) -> list[iam.PolicyStatement]:
        """Run, watch and cancel jobs of this application."""
        application = self.application.attr_arn
        return [
            iam.PolicyStatement(
                actions=[
                    "emr-serverless:GetApplication",
                    "emr-serverless:StartApplication",
                    "emr-serverless:StartJobRun",
                ],
                resources=[application],
            ),
            iam.PolicyStatement(
                actions=["emr-serverless:GetJobRun", "emr-serverless:CancelJobRun"],
                resources=[f"{application}/jobruns/*"],
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[self.role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "emr-serverless.amazonaws.com"}},
            ),
        ]
