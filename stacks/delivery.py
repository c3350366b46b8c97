"""How DAGs arrive: the CodeDeploy application on the bastion, and the pointer to the live version."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_environment import pointer_parameter
from stacks.constructs.bastion import CODEDEPLOY_TAG
from stacks.constructs.github_role import GitHubRole
from stacks.constructs.parameters import parameter_arn, read_and_write
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.waivers import waive


class DeliveryStack(cdk.Stack):
    """`application`, `group` and `pointer`; and what the bastion may do to deliver."""

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
        # The hooks make it with the first push, and move it with the next ones.
        self.pointer = pointer_parameter(config)
        self.progress = ssm.StringParameter(
            self,
            "Progress",
            parameter_name=f"{config.ssm_prefix}/bundle/progress",
            string_value="none",
            description="The deployment whose hooks last gave a sign of life",
        )
        self.application = codedeploy.ServerApplication(
            self, "Application", application_name=f"{config.prefix}-dags"
        )
        self.group = codedeploy.ServerDeploymentGroup(
            self,
            "Group",
            application=self.application,
            deployment_group_name=f"{config.prefix}-bastion",
            deployment_config=codedeploy.ServerDeploymentConfig.ALL_AT_ONCE,
            ec2_instance_tags=codedeploy.InstanceTagSet({CODEDEPLOY_TAG: [config.prefix]}),
            auto_rollback=codedeploy.AutoRollbackConfig(failed_deployment=True, stopped_deployment=True),
        )
        waive(
            self.group.node.find_child("Role"),
            "CodeDeploy checks its role when the group is made, and AWS keeps this policy at what it checks",
            "AwsSolutions-IAM4",
        )
        self._allow_bastion(config, network, storage)
        if config.dags.github_repository is not None:
            github = GitHubRole(
                self,
                "GitHub",
                repository=config.dags.github_repository,
                config=config,
                group=self.group,
                bundles=storage.bundles,
            )
            cdk.CfnOutput(self, "GitHubRoleArn", value=github.role.role_arn)
        cdk.CfnOutput(self, "ApplicationName", value=self.application.application_name)
        cdk.CfnOutput(self, "DeploymentGroupName", value=self.group.deployment_group_name)
        cdk.CfnOutput(self, "PointerParameter", value=self.pointer)

    def _allow_bastion(self, config: EnvironmentConfig, network: NetworkStack, storage: StorageStack) -> None:
        file_system_id, verifier_secret_arn = (
            parameter_arn(self, f"{config.ssm_prefix}/{name}")
            for name in ("releases/file-system-id", "verifier/secret-arn")
        )
        policy = iam.ManagedPolicy(
            self,
            "BastionPolicy",
            description="Delivers DAG bundles",
            roles=[network.bastion.role],
            statements=[
                iam.PolicyStatement(
                    actions=["s3:GetObject", "s3:GetObjectVersion"],
                    resources=[storage.bundles.arn_for_objects("*")],
                ),
                read_and_write(parameter_arn(self, self.pointer)),
                iam.PolicyStatement(actions=["ssm:PutParameter"], resources=[self.progress.parameter_arn]),
                iam.PolicyStatement(
                    actions=["ssm:GetParameter"], resources=[file_system_id, verifier_secret_arn]
                ),
                iam.PolicyStatement(
                    actions=["secretsmanager:GetSecretValue"], resources=[storage.verifier_secret.secret_arn]
                ),
                iam.PolicyStatement(
                    actions=[
                        "elasticfilesystem:ClientMount",
                        "elasticfilesystem:ClientWrite",
                        "elasticfilesystem:ClientRootAccess",
                    ],
                    resources=[storage.releases.file_system_arn],
                ),
                # The agent installs itself and its updates from AWS's own bucket.
                iam.PolicyStatement(
                    actions=["s3:GetObject"],
                    resources=[f"arn:{self.partition}:s3:::aws-codedeploy-{self.region}/*"],
                ),
            ],
        )
        waive(
            policy,
            "The objects of the bundles bucket, and of AWS's own bucket with the agent",
            "AwsSolutions-IAM5",
        )
