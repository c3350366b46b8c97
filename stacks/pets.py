"""The pet detection pipeline: its training image, its registry of models, and where the application is built and runs."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.airflow import AirflowStack
from stacks.config import EnvironmentConfig
from stacks.constructs.image_context import Image
from stacks.constructs.pets_build import PetsBuild
from stacks.constructs.pets_service import NAME, PetsService
from stacks.constructs.removal import data_removal_policy
from stacks.constructs.security_groups import PETS as PORT
from stacks.network import NetworkStack
from stacks.sections import Pets
from stacks.storage import StorageStack
from stacks.waivers import waive

# Of the data bucket: everything that the pipeline's runs make.
PREFIX = "pets/"


class PetsStack(cdk.Stack):
    """`settings`: what the pipeline's DAG reads."""

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
        assert config.pets is not None, "made where the environment has the section"
        self._config, self._pets, self._airflow = config, config.pets, airflow
        # SageMaker's GPU instances are x86, whatever the services run on.
        self.image = Image(
            self, "TrainingImage", name="pets-training", config=config, architecture="x86_64"
        ).asset
        self.model_packages = self._build_model_packages()
        settings: dict[str, Any] = {
            "training_image": self.image.image_uri,
            "instance_type": config.pets.instance_type,
            "model_package_group": self.model_packages.model_package_group_name,
            "prefix": PREFIX.rstrip("/"),
            "platform": config.pets.platform,
        }
        if config.pets.platform != "none":
            settings["build"] = self._build_build(storage)
        if config.pets.platform == "ecs":
            settings["ecs"] = self._build_service(network)
        if config.pets.platform == "eks":
            settings["eks"] = self._build_cluster_access(config.pets)
        self.settings = ssm.StringParameter(
            self,
            "Settings",
            parameter_name=f"{config.ssm_prefix}/pets",
            string_value=self.to_json_string(settings),
            description="What the pet detection DAG needs to know",
        )
        cdk.CfnOutput(self, "ModelPackageGroupName", value=self.model_packages.model_package_group_name)

    def _build_model_packages(self) -> sagemaker.CfnModelPackageGroup:
        group = sagemaker.CfnModelPackageGroup(
            self,
            "ModelPackages",
            model_package_group_name=f"{self._config.prefix}-pets",
            model_package_group_description="Models that tell cats from dogs",
        )
        group.apply_removal_policy(data_removal_policy(self._config))
        return group

    def _build_build(self, storage: StorageStack) -> dict[str, Any]:
        """The application's build, as the DAG knows it."""
        self.build = PetsBuild(self, "Build", config=self._config, data=storage.data, models=PREFIX)
        project = str(self.build.project.name)
        self._allow_tasks(
            "BuildPolicy",
            "Builds the application image",
            iam.PolicyStatement(
                actions=["codebuild:StartBuild", "codebuild:BatchGetBuilds", "codebuild:StopBuild"],
                resources=[self.format_arn(service="codebuild", resource="project", resource_name=project)],
            ),
            iam.PolicyStatement(
                actions=["ecr:BatchGetImage"], resources=[self.build.repository.repository_arn]
            ),
        )
        return {
            "project": project,
            "repository": self.build.repository.repository_name,
            "repository_uri": self.build.repository.repository_uri,
            # Another application around the same model is another image.
            "source": self.build.source.asset_hash,
        }

    def _build_service(self, network: NetworkStack) -> dict[str, Any]:
        """The application's task definition and name, as the DAG knows them."""
        service = PetsService(
            self,
            "Service",
            config=self._config,
            pets=self._pets,
            repository=self.build.repository,
            namespace=self._airflow.namespace,
        )
        cluster = self._airflow.cluster
        execution_role = service.template.obtain_execution_role()
        of_cluster = {"ArnEquals": {"ecs:cluster": cluster.cluster_arn}}
        family = f"{self._config.prefix}-{NAME}"
        revisions = self.format_arn(service="ecs", resource="task-definition", resource_name=f"{family}:*")
        policy = self._allow_tasks(
            "DeployPolicy",
            "Deploys the application on ECS",
            # None of these takes a resource.
            iam.PolicyStatement(
                actions=["ecs:DescribeTaskDefinition", "ecs:DeregisterTaskDefinition"], resources=["*"]
            ),
            iam.PolicyStatement(actions=["ecs:ListTasks"], resources=["*"], conditions=of_cluster),
            iam.PolicyStatement(
                actions=["ecs:RegisterTaskDefinition", "ecs:TagResource"],
                resources=[revisions],
            ),
            iam.PolicyStatement(actions=["ecs:RunTask"], resources=[revisions], conditions=of_cluster),
            iam.PolicyStatement(
                actions=["ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource"],
                resources=[
                    self.format_arn(service="ecs", resource="task", resource_name=f"{cluster.cluster_name}/*")
                ],
            ),
            iam.PolicyStatement(
                actions=[
                    "ecs:CreateService",
                    "ecs:UpdateService",
                    "ecs:DescribeServices",
                    "ecs:TagResource",
                ],
                resources=[
                    self.format_arn(
                        service="ecs", resource="service", resource_name=f"{cluster.cluster_name}/{NAME}"
                    )
                ],
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[service.task_role.role_arn, execution_role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
        )
        waive(
            policy,
            "Revisions and tasks get their numbers when they are made, and two of ECS's actions take no resource",
            "AwsSolutions-IAM5",
        )
        cdk.CfnOutput(self, "ServiceName", value=NAME)
        assert network.groups.pets is not None, "made where the platform is ECS"
        return {
            "cluster": cluster.cluster_name,
            "service": NAME,
            "port": PORT,
            # A deployment registers the family's next revision: this one, with its image.
            "template": service.template.task_definition_arn,
            "registry_arn": service.registry.service_arn,
            "name": f"{NAME}.{self._config.prefix}.internal",
            "count": self._pets.count,
            "subnet_ids": network.service_subnet_ids,
            "security_group_ids": [network.groups.pets.security_group_id],
            "assign_public_ip": network.assigns_public_ip,
        }

    def _build_cluster_access(self, pets: Pets) -> dict[str, Any]:
        """What lets the DAG reach an existing cluster. Its own access entry for the tasks' role is the cluster's."""
        self._allow_tasks(
            "ClusterPolicy",
            "Finds the cluster that the application is deployed to",
            iam.PolicyStatement(
                actions=["eks:DescribeCluster"],
                resources=[
                    self.format_arn(service="eks", resource="cluster", resource_name=pets.eks_cluster)
                ],
            ),
        )
        return {"cluster": pets.eks_cluster, "namespace": pets.eks_namespace, "count": pets.count}

    def _allow_tasks(
        self, construct_id: str, description: str, *statements: iam.PolicyStatement
    ) -> iam.ManagedPolicy:
        """A policy of this stack on the tasks' role: granting from there would make a cycle of stacks."""
        return iam.ManagedPolicy(
            self,
            construct_id,
            description=description,
            roles=[self._airflow.task_role],
            statements=list(statements),
        )
