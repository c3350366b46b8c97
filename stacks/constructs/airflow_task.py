"""One Fargate task definition around the Airflow image: its command, its part of the secrets, its health check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_efs as efs
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.log_group import log_group
from stacks.sizes import FargateSize

RELEASES_DIRECTORY = "/mnt/releases"
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


class AirflowTask(Construct):
    """`definition`, `container` and `log_group` of one kind of Airflow task."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        command: Sequence[str],
        health_check: Sequence[str] | None,
        size: FargateSize,
        role: iam.IRole,
        airflow: AirflowImage,
        config: EnvironmentConfig,
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, ecs.Secret] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.log_group = log_group(
            self, "Logs", name=f"{config.ssm_prefix}/{name}", retention_days=config.log_retention_days
        )
        self.definition = self._build_definition(name, size, role, config)
        self.container = self.definition.add_container(
            "airflow",
            image=airflow.image,
            command=list(command),
            environment={**airflow.environment, **(environment or {})},
            secrets={**airflow.secrets, **(secrets or {})},
            logging=ecs.LogDrivers.aws_logs(stream_prefix=name, log_group=self.log_group),
            health_check=_health_check(health_check, config) if health_check else None,
            stop_timeout=cdk.Duration.seconds(STOP_TIMEOUT_SECONDS),
        )
        self._mount_releases(airflow.releases)

    def _build_definition(
        self, name: str, size: FargateSize, role: iam.IRole, config: EnvironmentConfig
    ) -> ecs.FargateTaskDefinition:
        return ecs.FargateTaskDefinition(
            self,
            "Definition",
            family=f"{config.prefix}-{name}",
            cpu=size.cpu,
            memory_limit_mib=size.memory_mib,
            task_role=role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ARCHITECTURES[config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )

    def _mount_releases(self, releases: efs.IFileSystem) -> None:
        self.definition.add_volume(
            name="releases",
            efs_volume_configuration=ecs.EfsVolumeConfiguration(
                file_system_id=releases.file_system_id,
                transit_encryption="ENABLED",
                authorization_config=ecs.AuthorizationConfig(iam="ENABLED"),
            ),
        )
        self.container.add_mount_points(
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
