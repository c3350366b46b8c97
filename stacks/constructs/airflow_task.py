"""A task definition around the Airflow image: its containers with their commands, secrets and health checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_efs as efs
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.log_group import log_group
from stacks.constructs.writable_folders import add_writable_folders
from stacks.sizes import FargateSize
from stacks.waivers import policy_of, waive

RELEASES_DIRECTORY = "/mnt/releases"
# Volumes of docker/airflow/Dockerfile: temporary files, local copies of releases; pid files and Airflow's own settings.
WRITABLE = ("/tmp", "/opt/airflow")
ARCHITECTURES = {"arm64": ecs.CpuArchitecture.ARM64, "x86_64": ecs.CpuArchitecture.X86_64}
# A worker that is told to stop gets the longest time that Fargate gives.
STOP_TIMEOUT_SECONDS = 120
START_PERIOD_SECONDS = 300
UNHEALTHY_AFTER = 5


@dataclass(frozen=True)
class AirflowImage:
    """What every Airflow container shares: image, environment, secrets, and the roles' common ground."""

    image: ecs.ContainerImage
    environment: Mapping[str, str]
    secrets: Mapping[str, ecs.Secret]
    releases: efs.IFileSystem


@dataclass(frozen=True)
class Program:
    """What one container runs, beside what all of them share; its log group has its name."""

    name: str
    command: Sequence[str]
    health_check: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, ecs.Secret] = field(default_factory=dict)


class AirflowTask(Construct):
    """`definition` of one kind of Airflow task, with a container for each program.

    The one that the task is named after is called `airflow`, another one as its program. With `on_instances` the task runs on
    instances of the cluster instead of Fargate.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        programs: Sequence[Program],
        size: FargateSize,
        role: iam.IRole,
        airflow: AirflowImage,
        config: EnvironmentConfig,
        on_instances: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._airflow = airflow
        self.definition = self._build_definition(name, size, role, on_instances=on_instances)
        self.definition.add_volume(
            name="releases",
            efs_volume_configuration=ecs.EfsVolumeConfiguration(
                file_system_id=airflow.releases.file_system_id,
                transit_encryption="ENABLED",
                authorization_config=ecs.AuthorizationConfig(iam="ENABLED"),
            ),
        )
        for program in programs:
            if program.name == name:
                self._add(program, container_name="airflow", logs_id="Logs")
            else:
                self._add(program, container_name=program.name, logs_id=f"Logs-{program.name}")
        waive_task(self.definition)

    def _build_definition(
        self, name: str, size: FargateSize, role: iam.IRole, *, on_instances: bool
    ) -> ecs.TaskDefinition:
        family = f"{self._config.prefix}-{name}"
        if on_instances:
            return ecs.TaskDefinition(
                self,
                "Definition",
                compatibility=ecs.Compatibility.EC2,
                network_mode=ecs.NetworkMode.AWS_VPC,
                family=family,
                cpu=str(size.cpu),
                memory_mib=str(size.memory_mib),
                task_role=role,
            )
        return ecs.FargateTaskDefinition(
            self,
            "Definition",
            family=family,
            cpu=size.cpu,
            memory_limit_mib=size.memory_mib,
            task_role=role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ARCHITECTURES[self._config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )

    def _add(self, program: Program, *, container_name: str, logs_id: str) -> None:
        config = self._config
        group = log_group(
            self,
            logs_id,
            name=f"{config.ssm_prefix}/{program.name}",
            retention_days=config.log_retention_days,
        )
        container = self.definition.add_container(
            container_name,
            image=self._airflow.image,
            command=list(program.command),
            environment={**self._airflow.environment, **program.environment},
            secrets={**self._airflow.secrets, **program.secrets},
            logging=ecs.LogDrivers.aws_logs(stream_prefix=program.name, log_group=group),
            health_check=_health_check(program.health_check, config) if program.health_check else None,
            stop_timeout=cdk.Duration.seconds(STOP_TIMEOUT_SECONDS),
            readonly_root_filesystem=True,
            # Reaps what tasks leave behind, and hands SIGTERM to Airflow's parent process alone: a warm shutdown.
            linux_parameters=ecs.LinuxParameters(self, f"{container_name}-linux", init_process_enabled=True),
        )
        add_writable_folders(self.definition, container, WRITABLE, execute_command=config.execute_command)
        container.add_mount_points(
            ecs.MountPoint(container_path=RELEASES_DIRECTORY, source_volume="releases", read_only=True)
        )


def _health_check(command: Sequence[str], config: EnvironmentConfig) -> ecs.HealthCheck:
    return ecs.HealthCheck(
        command=["CMD", *command],
        interval=cdk.Duration.seconds(config.health_check_interval_seconds),
        timeout=cdk.Duration.seconds(min(20, config.health_check_interval_seconds)),
        retries=UNHEALTHY_AFTER,
        start_period=cdk.Duration.seconds(START_PERIOD_SECONDS),
    )


def waive_task(definition: ecs.TaskDefinition) -> None:
    """What every task definition of ours is waived, and why."""
    waive(definition, "Only names and addresses: every password is an ECS secret", "AwsSolutions-ECS2")
    waive(
        policy_of(definition.obtain_execution_role()),
        "ecr:GetAuthorizationToken takes no resource",
        "AwsSolutions-IAM5[Resource::*]",
    )
