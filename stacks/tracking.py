"""The MLflow tracking server: on the same PostgreSQL instance in a database of its own, artifacts in S3."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.airflow import AirflowStack
from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_service import AirflowService
from stacks.constructs.image_context import Image
from stacks.constructs.mlflow_task import MlflowTask
from stacks.constructs.private_bucket import allow_objects
from stacks.network import NetworkStack
from stacks.storage import StorageStack, waive_unrotated
from stacks.waivers import policy_of, waive


class TrackingStack(cdk.Stack):
    """The `mlflow` service, found as `mlflow.{namespace}`."""

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
        assert storage.tracking_login is not None, "made where tracking is on"
        session_key = secretsmanager.Secret(
            self,
            "SessionKey",
            description="Signs the sessions of the tracking server's users",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=48, exclude_punctuation=True
            ),
        )
        waive_unrotated(session_key)
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
        allow_objects(role, storage.data, "mlflow/")
        waive(policy_of(role), "The objects under its own prefix", "AwsSolutions-IAM5")
        image = Image(self, "Image", name="mlflow", config=config, architecture=config.architecture)
        task = MlflowTask(
            self,
            "Task",
            image=ecs.ContainerImage.from_docker_image_asset(image.asset),
            role=role,
            login=storage.tracking_login,
            session_key=session_key,
            storage=storage,
            config=config,
        )
        assert network.groups.mlflow is not None, "made where tracking is on"
        AirflowService(
            self,
            "Mlflow",
            name="mlflow",
            definition=task.definition,
            count=1,
            capacity=config.services.capacity,
            cluster=airflow.cluster,
            network=network,
            security_groups=[network.groups.mlflow],
            execute_command=config.execute_command,
            namespace=airflow.namespace,
            dns_name="mlflow",
        )
        cdk.CfnOutput(self, "TrackingSecretArn", value=storage.tracking_login.secret_arn)
