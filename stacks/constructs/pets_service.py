"""What the application runs as on ECS: a task definition without an image yet, its roles and its name.

The service itself is made by the first deployment of a model and changed by each further one, so that a deployment of
the stacks never puts an older model in its place.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_service import DNS_TTL_SECONDS
from stacks.constructs.airflow_task import ARCHITECTURES
from stacks.constructs.log_group import log_group
from stacks.constructs.security_groups import PETS as PORT
from stacks.constructs.writable_folders import add_writable_folders
from stacks.sections import Pets
from stacks.waivers import policy_of, waive

NAME = "pets"
# A tag that no image ever gets: each deployment registers a revision of its own with its image in this one's place.
NO_IMAGE = "none"
START_PERIOD_SECONDS = 60


class PetsService(Construct):
    """`template` (a task definition), `task_role`, and `registry`, the application's name in Cloud Map."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        pets: Pets,
        repository: ecr.IRepository,
        namespace: servicediscovery.IPrivateDnsNamespace,
    ) -> None:
        super().__init__(scope, construct_id)
        self.task_role = iam.Role(
            self,
            "TaskRole",
            description="Of the application, which asks nothing of AWS",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
        )
        self.template = self._build_template(config, pets, repository)
        self.registry = servicediscovery.Service(
            self,
            "Name",
            namespace=namespace,
            name=NAME,
            dns_record_type=servicediscovery.DnsRecordType.A,
            dns_ttl=cdk.Duration.seconds(DNS_TTL_SECONDS),
            custom_health_check=servicediscovery.HealthCheckCustomConfig(failure_threshold=1),
        )

    def _build_template(
        self, config: EnvironmentConfig, pets: Pets, repository: ecr.IRepository
    ) -> ecs.FargateTaskDefinition:
        group = log_group(
            self, "Logs", name=f"{config.ssm_prefix}/{NAME}", retention_days=config.log_retention_days
        )
        definition = ecs.FargateTaskDefinition(
            self,
            "Template",
            family=f"{config.prefix}-{NAME}",
            cpu=pets.size.cpu,
            memory_limit_mib=pets.size.memory_mib,
            task_role=self.task_role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ARCHITECTURES[config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        container = definition.add_container(
            NAME,
            image=ecs.ContainerImage.from_ecr_repository(repository, NO_IMAGE),
            port_mappings=[ecs.PortMapping(container_port=PORT)],
            logging=ecs.LogDrivers.aws_logs(stream_prefix=NAME, log_group=group),
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-m", "ml.pets.application", "--check"],
                interval=cdk.Duration.seconds(config.health_check_interval_seconds),
                timeout=cdk.Duration.seconds(min(20, config.health_check_interval_seconds)),
                retries=3,
                start_period=cdk.Duration.seconds(START_PERIOD_SECONDS),
            ),
            readonly_root_filesystem=True,
            linux_parameters=ecs.LinuxParameters(self, "Linux", init_process_enabled=True),
        )
        add_writable_folders(definition, container, ("/tmp",), execute_command=False)
        waive(
            policy_of(definition.obtain_execution_role()),
            "ecr:GetAuthorizationToken takes no resource",
            "AwsSolutions-IAM5[Resource::*]",
        )
        return definition
