"""Airflow on ECS: cluster, one image, the services of the control plane, the worker's task definitions, and the
migration that every deployment waits for."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs import airflow_environment
from stacks.constructs.airflow_service import AirflowService
from stacks.constructs.airflow_task import AirflowImage, AirflowTask
from stacks.constructs.image_context import Image
from stacks.constructs.migration import Migration
from stacks.network import NetworkStack
from stacks.sizes import FargateSize, Service
from stacks.storage import StorageStack

MIGRATION_SIZE = FargateSize(cpu=512, memory_mib=2048)
HTTP_CHECK = ("python", "-m", "runtime.health", "http")
HEARTBEAT_CHECK = ("python", "-m", "runtime.health", "heartbeat")


class AirflowStack(cdk.Stack):
    """`cluster`, `namespace`, `control_role`, `task_role`, `workers` (task definitions by queue)."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        storage: StorageStack,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        self._config = config
        self._network = network
        self._storage = storage
        self.cluster = ecs.Cluster(
            self,
            "Cluster",
            cluster_name=config.prefix,
            vpc=network.vpc,
            enable_fargate_capacity_providers=True,
            container_insights_v2=ecs.ContainerInsights.DISABLED,
        )
        self.namespace = servicediscovery.PrivateDnsNamespace(
            self, "Namespace", name=f"{config.prefix}.internal", vpc=network.vpc
        )
        self.control_role = self._build_role("ControlRole", "the control plane")
        self.task_role = self._build_role("TaskRole", "DAG tasks, in workers and the triggerer")
        self._grant(self.control_role, self.task_role)
        image = Image(self, "Image", name="airflow", config=config, architecture=config.architecture)
        self.airflow = AirflowImage(
            image=ecs.ContainerImage.from_docker_image_asset(image.asset),
            environment=airflow_environment.environment(config, storage),
            secrets=airflow_environment.secrets(storage),
            releases=storage.releases,
        )
        self.migration = self._build_migration()
        self._build_services()
        self.workers = {queue: self._build_worker(queue) for queue in config.workers}
        self._add_outputs()

    def _build_role(self, construct_id: str, of: str) -> iam.Role:
        return iam.Role(
            self,
            construct_id,
            description=f"Of {of}",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
        )

    def _grant(self, *roles: iam.Role) -> None:
        parameters = self.format_arn(
            service="ssm", resource="parameter", resource_name=f"{self._config.ssm_prefix.lstrip('/')}/*"
        )
        for role in roles:
            self._storage.logs.grant_read_write(role)
            self._storage.releases.grant(role, "elasticfilesystem:ClientMount")
            role.add_to_policy(iam.PolicyStatement(actions=["ssm:GetParameter"], resources=[parameters]))
            for queue in self._storage.broker.queues.values():
                queue.grant_send_messages(role)
                queue.grant_consume_messages(role)
        self._storage.data.grant_read_write(self.task_role)
        self.task_role.add_to_policy(
            iam.PolicyStatement(
                actions=["ecs:ListTasks", "ecs:DescribeTasks"],
                resources=["*"],
                conditions={"ArnEquals": {"ecs:cluster": self.cluster.cluster_arn}},
            )
        )
        # AWS has no resource for describing a task definition.
        self.task_role.add_to_policy(
            iam.PolicyStatement(actions=["ecs:DescribeTaskDefinition"], resources=["*"])
        )

    def _build_migration(self) -> Migration:
        task = AirflowTask(
            self,
            "MigrationTask",
            name="migration",
            command=["python", "-m", "runtime.migrate"],
            health_check=None,
            size=MIGRATION_SIZE,
            role=self.control_role,
            airflow=self.airflow,
            config=self._config,
            environment={
                "UPDRAFT_METRICS_DATABASE_USER": airflow_environment.METRICS_DATABASE_USER,
                "UPDRAFT_EXTRA_DATABASES": "mlflow" if self._config.tracking.enabled else "",
            },
            secrets={
                "UPDRAFT_ADMIN_USERNAME": ecs.Secret.from_secrets_manager(self._storage.admin, "username"),
                "UPDRAFT_ADMIN_PASSWORD": ecs.Secret.from_secrets_manager(self._storage.admin, "password"),
            },
        )
        return Migration(
            self,
            "Migration",
            definition=task.definition,
            cluster=self.cluster,
            network=self._network,
            security_group=self._network.groups.airflow,
        )

    def _build_services(self) -> None:
        services = self._config.services
        groups = self._network.groups
        self._build_service(
            "webserver",
            services.webserver,
            command=["airflow", "api-server", "--host", "0.0.0.0", "--port", "8080"],
            health_check=(*HTTP_CHECK, "http://localhost:8080/api/v2/monitor/health"),
            security_group=groups.webserver,
            listens=True,
        )
        self._build_service(
            "scheduler",
            services.scheduler,
            command=["airflow", "scheduler"],
            health_check=(*HTTP_CHECK, "http://localhost:8974/health"),
        )
        self._build_service(
            "dag-processor",
            services.dag_processor,
            command=["airflow", "dag-processor"],
            health_check=(*HEARTBEAT_CHECK, "DagProcessorJob"),
        )
        self._build_service(
            "triggerer",
            services.triggerer,
            command=["airflow", "triggerer"],
            health_check=(*HEARTBEAT_CHECK, "TriggererJob"),
            role=self.task_role,
        )
        if services.flower is not None and self._storage.flower_login is not None:
            login = self._storage.flower_login
            self._build_service(
                "flower",
                services.flower,
                command=["airflow", "celery", "flower", "--port", "5555"],
                health_check=(*HTTP_CHECK, "http://localhost:5555/healthcheck"),
                listens=True,
                secrets={
                    "UPDRAFT_FLOWER_USERNAME": ecs.Secret.from_secrets_manager(login, "username"),
                    "UPDRAFT_FLOWER_PASSWORD": ecs.Secret.from_secrets_manager(login, "password"),
                },
            )

    def _build_service(
        self,
        name: str,
        size: Service,
        *,
        command: list[str],
        health_check: tuple[str, ...],
        security_group: Any = None,
        listens: bool = False,
        role: iam.Role | None = None,
        secrets: dict[str, ecs.Secret] | None = None,
    ) -> None:
        construct_id = name.title().replace("-", "")
        task = AirflowTask(
            self,
            f"{construct_id}Task",
            name=name,
            command=command,
            health_check=health_check,
            size=size,
            role=role or self.control_role,
            airflow=self.airflow,
            config=self._config,
            secrets=secrets,
        )
        service = AirflowService(
            self,
            construct_id,
            name=name,
            definition=task.definition,
            count=size.count,
            cluster=self.cluster,
            network=self._network,
            security_group=security_group or self._network.groups.airflow,
            namespace=self.namespace if listens else None,
        )
        service.node.add_dependency(self.migration)

    def _build_worker(self, queue: str) -> ecs.FargateTaskDefinition:
        """Workers are no service: the load metric starts their tasks, and they leave by themselves."""
        worker = self._config.workers[queue]
        task = AirflowTask(
            self,
            f"Worker-{queue}",
            name=f"worker-{queue}",
            command=["airflow", "celery", "worker", "--queues", queue],
            health_check=("python", "-m", "runtime.health", "worker"),
            size=worker,
            role=self.task_role,
            airflow=self.airflow,
            config=self._config,
            environment={
                "UPDRAFT_QUEUE": queue,
                "UPDRAFT_WORKER_MIN": str(worker.min),
                "UPDRAFT_WORKER_IDLE_SECONDS": str(worker.idle_seconds),
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(worker.concurrency),
            },
        )
        return task.definition

    def _add_outputs(self) -> None:
        login = self._storage.flower_login
        cdk.CfnOutput(self, "ClusterName", value=self.cluster.cluster_name)
        cdk.CfnOutput(self, "AdminSecretArn", value=self._storage.admin.secret_arn)
        if isinstance(login, secretsmanager.Secret):
            cdk.CfnOutput(self, "FlowerSecretArn", value=login.secret_arn)
        cdk.CfnOutput(self, "MigrationTaskDefinitionArn", value=self.migration.definition.task_definition_arn)
