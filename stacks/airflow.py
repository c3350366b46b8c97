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
from stacks.constructs.airflow_task import STOP_TIMEOUT_SECONDS, AirflowImage, AirflowTask, Program
from stacks.constructs.control_plane import ControlPlane, services_on_the_schema
from stacks.constructs.image_context import Image
from stacks.constructs.maintenance import Maintenance
from stacks.constructs.migration import Migration
from stacks.constructs.parameters import parameter_arn
from stacks.constructs.private_bucket import allow_objects
from stacks.constructs.worker_hosts import WorkerHosts
from stacks.network import NetworkStack
from stacks.sizes import FargateSize
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

# Of the tasks that run once: the migration, the nightly clean-up.
ONE_OFF_SIZE = FargateSize(cpu=512, memory_mib=2048)


class AirflowStack(cdk.Stack):
    """`cluster`, `namespace`, `control_role`, `task_role`; `workers` (task definitions) and `capacity_providers`
    (names) by queue."""

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
            container_insights_v2=ecs.ContainerInsights.ENABLED
            if config.hardened
            else ecs.ContainerInsights.DISABLED,
            # CloudTrail has who ran which command; what it printed may hold secrets and is kept nowhere.
            execute_command_configuration=ecs.ExecuteCommandConfiguration(
                logging=ecs.ExecuteCommandLogging.NONE
            )
            if config.execute_command
            else None,
        )
        if not config.hardened:
            waive(
                self.cluster,
                "Insights are billed by the metric; a hardened environment has them",
                "AwsSolutions-ECS4",
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
        ControlPlane(
            self,
            "ControlPlane",
            config=config,
            network=network,
            storage=storage,
            cluster=self.cluster,
            namespace=self.namespace,
            airflow=self.airflow,
            control_role=self.control_role,
            task_role=self.task_role,
            after=self.migration,
        )
        self._build_maintenance()
        self.workers = {queue: self._build_worker(queue) for queue in config.workers}
        self.capacity_providers = {queue: self._build_capacity(queue) for queue in config.workers}
        self._add_outputs()

    def _build_role(self, construct_id: str, of: str) -> iam.Role:
        return iam.Role(
            self,
            construct_id,
            description=f"Of {of}",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
        )

    def _grant(self, *roles: iam.Role) -> None:
        parameters = parameter_arn(self, f"{self._config.ssm_prefix}/*")
        for role in roles:
            allow_objects(role, self._storage.logs)
            self._storage.releases.grant(role, "elasticfilesystem:ClientMount")
            role.add_to_policy(
                iam.PolicyStatement(
                    actions=["secretsmanager:GetSecretValue"],
                    resources=airflow_environment.user_secrets(self, self._config),
                )
            )
            role.add_to_policy(iam.PolicyStatement(actions=["ssm:GetParameter"], resources=[parameters]))
            for queue in self._storage.broker.queues.values():
                queue.grant_send_messages(role)
                queue.grant_consume_messages(role)
        allow_objects(self.task_role, self._storage.data)
        if self._config.tracking.enabled:
            # Lineage tells by an object's oldest version when it was made.
            self.task_role.add_to_policy(
                iam.PolicyStatement(
                    actions=["s3:ListBucketVersions"], resources=[self._storage.data.bucket_arn]
                )
            )
        for role in roles:
            waive(
                policy_of(role),
                "Objects of this environment's buckets and its SSM parameters",
                "AwsSolutions-IAM5",
            )

    def _build_migration(self) -> Migration:
        admin, warehouse = self._storage.admin, self._storage.warehouse_connection
        secrets = {
            "UPDRAFT_ADMIN_USERNAME": ecs.Secret.from_secrets_manager(admin, "username"),
            "UPDRAFT_ADMIN_PASSWORD": ecs.Secret.from_secrets_manager(admin, "password"),
        }
        if warehouse is not None:
            secrets |= {
                "UPDRAFT_WAREHOUSE_DATABASE": ecs.Secret.from_secrets_manager(warehouse, "schema"),
                "UPDRAFT_WAREHOUSE_USERNAME": ecs.Secret.from_secrets_manager(warehouse, "login"),
                "UPDRAFT_WAREHOUSE_PASSWORD": ecs.Secret.from_secrets_manager(warehouse, "password"),
            }
        program = Program(
            "migration",
            ["python", "-m", "runtime.migrate"],
            environment={
                "UPDRAFT_METRICS_DATABASE_USER": airflow_environment.METRICS_DATABASE_USER,
                "UPDRAFT_EXTRA_DATABASES": "mlflow" if self._config.tracking.enabled else "",
            },
            secrets=secrets,
        )
        return Migration(
            self,
            "Migration",
            definition=self._build_task("MigrationTask", program, ONE_OFF_SIZE, self.control_role),
            cluster=self.cluster,
            network=self._network,
            security_group=self._network.groups.airflow,
            services=services_on_the_schema(self._config),
        )

    def _build_maintenance(self) -> None:
        days = str(self._config.airflow.metadata_retention_days)
        program = Program(
            "maintenance",
            ["python", "-m", "runtime.cleanup"],
            environment={"UPDRAFT_METADATA_RETENTION_DAYS": days},
        )
        Maintenance(
            self,
            "Maintenance",
            definition=self._build_task("MaintenanceTask", program, ONE_OFF_SIZE, self.control_role),
            cluster=self.cluster,
            network=self._network,
            sleep=self._config.sleep,
        )

    def _build_worker(self, queue: str) -> ecs.TaskDefinition:
        """Workers are no service: the load metric starts their tasks, and they leave by themselves."""
        worker = self._config.workers[queue]
        program = Program(
            f"worker-{queue}",
            ["airflow", "celery", "worker", "--queues", queue],
            ("python", "-m", "runtime.health", "worker"),
            environment={
                "UPDRAFT_QUEUE": queue,
                "UPDRAFT_WORKER_IDLE_SECONDS": str(worker.idle_seconds),
                "UPDRAFT_STOP_SECONDS": str(STOP_TIMEOUT_SECONDS),
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(worker.concurrency),
            },
        )
        definition = self._build_task(
            f"Worker-{queue}", program, worker, self.task_role, capacity=worker.capacity
        )
        # The load metric starts the newest revision: none of a new image before the schema is that image's.
        definition.node.add_dependency(self.migration)
        return definition

    def _build_capacity(self, queue: str) -> str:
        """The capacity provider that the queue's workers start on."""
        worker = self._config.workers[queue]
        if worker.capacity != "EC2":
            return worker.capacity
        hosts = WorkerHosts(
            self,
            f"Hosts-{queue}",
            worker=worker,
            architecture=self._config.architecture,
            cluster=self.cluster,
            network=self._network,
        )
        return hosts.provider.capacity_provider_name

    def _build_task(
        self,
        construct_id: str,
        program: Program,
        size: FargateSize,
        role: iam.Role,
        *,
        capacity: str = "FARGATE",
    ) -> ecs.TaskDefinition:
        return AirflowTask(
            self,
            construct_id,
            name=program.name,
            programs=[program],
            size=size,
            role=role,
            airflow=self.airflow,
            config=self._config,
            on_instances=capacity == "EC2",
        ).definition

    def _add_outputs(self) -> None:
        login = self._storage.flower_login
        cdk.CfnOutput(self, "ClusterName", value=self.cluster.cluster_name)
        cdk.CfnOutput(self, "AdminSecretArn", value=self._storage.admin.secret_arn)
        if isinstance(login, secretsmanager.Secret):
            cdk.CfnOutput(self, "FlowerSecretArn", value=login.secret_arn)
        cdk.CfnOutput(self, "MigrationTaskDefinitionArn", value=self.migration.definition.task_definition_arn)
