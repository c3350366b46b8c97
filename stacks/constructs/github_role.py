"""The role with which a repository's GitHub Actions push DAG bundles, without any stored key."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import EnvironmentConfig

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
# A push takes seconds to minutes; an hour is the shortest that IAM has.
SESSION = cdk.Duration.hours(1)


class GitHubRole(Construct):
    """`role`: taken by the jobs of one repository that run in the GitHub environment named as this one.

    Who may run there, and from which branch, is that GitHub environment's own protection. The account's identity
    provider for GitHub is one for all its stacks, and so is not made here (docs/delivery-pipeline.md).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repository: str,
        config: EnvironmentConfig,
        group: codedeploy.IServerDeploymentGroup,
        bundles: s3.IBucket,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        provider = stack.format_arn(service="iam", region="", resource="oidc-provider", resource_name=ISSUER)
        self.role = iam.Role(
            self,
            "Role",
            description=f"Pushes DAG bundles from {repository}",
            max_session_duration=SESSION,
            assumed_by=iam.FederatedPrincipal(
                provider,
                {
                    "StringEquals": {
                        f"{ISSUER}:aud": AUDIENCE,
                        f"{ISSUER}:sub": f"repo:{repository}:environment:{config.environment}",
                    }
                },
                "sts:AssumeRoleWithWebIdentity",
            ),
        )
        deployment_config = codedeploy.ServerDeploymentConfig.ALL_AT_ONCE.deployment_config_arn
        for actions, resource in (
            (["s3:PutObject"], bundles.arn_for_objects("*.zip")),
            # The revision is registered with the application on the deployment's way in.
            (["codedeploy:RegisterApplicationRevision"], group.application.application_arn),
            (["codedeploy:CreateDeployment", "codedeploy:GetDeployment"], group.deployment_group_arn),
            (["codedeploy:GetDeploymentConfig"], deployment_config),
        ):
            self.role.add_to_policy(iam.PolicyStatement(actions=actions, resources=[resource]))
