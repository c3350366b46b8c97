"""The Fargate task definition of the MLflow server."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_task import ARCHITECTURES, waive_task
from stacks.constructs.log_group import log_group
from stacks.constructs.writable_folders import add_writable_folders
from stacks.storage import StorageStack

DATABASE_NAME = "mlflow"
PORT = 5000
# Volumes of docker/mlflow/Dockerfile.
WRITABLE = ("/tmp", "/opt/mlflow")


class MlflowTask(Construct):
    """`definition`: the server's database URL is put together in the container, from parts and secrets."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        image: ecs.ContainerImage,
        role: iam.IRole,
        login: secretsmanager.ISecret,
        session_key: secretsmanager.ISecret,
        storage: StorageStack,
        config: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        size = config.tracking.size
        group = log_group(
            self, "Logs", name=f"{config.ssm_prefix}/mlflow", retention_days=config.log_retention_days
        )
        self.definition = ecs.FargateTaskDefinition(
            self,
            "Definition",
            family=f"{config.prefix}-mlflow",
            cpu=size.cpu,
            memory_limit_mib=size.memory_mib,
            task_role=role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ARCHITECTURES[config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        container = self.definition.add_container(
            "mlflow",
            image=image,
            environment={
                "MLFLOW_PORT": str(PORT),
                # Its own name, and the tunnel's end on a user's machine.
                "MLFLOW_SERVER_ALLOWED_HOSTS": f"mlflow.{config.prefix}.internal:{PORT},localhost:*,127.0.0.1:*",
                "MLFLOW_ARTIFACTS": storage.data.s3_url_for_object("mlflow"),
                "UPDRAFT_DATABASE_HOST": storage.database.db_instance_endpoint_address,
                "UPDRAFT_DATABASE_PORT": storage.database.db_instance_endpoint_port,
                "UPDRAFT_DATABASE_NAME": DATABASE_NAME,
                "AWS_REGION": config.region,
                "AWS_DEFAULT_REGION": config.region,
            },
            secrets={
                "UPDRAFT_DATABASE_USER": ecs.Secret.from_secrets_manager(storage.database_secret, "username"),
                "UPDRAFT_DATABASE_PASSWORD": ecs.Secret.from_secrets_manager(
                    storage.database_secret, "password"
                ),
                "MLFLOW_USERNAME": ecs.Secret.from_secrets_manager(login, "username"),
                "MLFLOW_PASSWORD": ecs.Secret.from_secrets_manager(login, "password"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": ecs.Secret.from_secrets_manager(session_key),
            },
            logging=ecs.LogDrivers.aws_logs(stream_prefix="mlflow", log_group=group),
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "/opt/updraft/server.py", "--check"],
                interval=cdk.Duration.seconds(config.health_check_interval_seconds),
                timeout=cdk.Duration.seconds(min(20, config.health_check_interval_seconds)),
                retries=5,
                # The first start makes the tables: two minutes were too few on a busy machine.
                start_period=cdk.Duration.seconds(300),
            ),
            readonly_root_filesystem=True,
            linux_parameters=ecs.LinuxParameters(self, "mlflow-linux", init_process_enabled=True),
        )
        add_writable_folders(self.definition, container, WRITABLE, execute_command=config.execute_command)
        waive_task(self.definition)
