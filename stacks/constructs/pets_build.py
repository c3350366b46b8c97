"""The application image: its repository, its source without a model, and the CodeBuild project that builds it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from stacks.config import ROOT, EnvironmentConfig
from stacks.constructs.log_group import log_group
from stacks.constructs.removal import data_removal_policy
from stacks.waivers import policy_of, waive

IMAGE = "pets-application"
# Only these of `ml/` are in the application's image: neither training nor drawing.
SOURCES = ("__init__.py", "pets/__init__.py", "pets/application.py", "pets/pictures.py")
IMAGES_KEPT = 20
TIMEOUT_MINUTES = 20
QUEUED_MINUTES = 30
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-available.html
ENVIRONMENTS = {
    "x86_64": ("LINUX_CONTAINER", "aws/codebuild/standard:7.0"),
    "arm64": ("ARM_CONTAINER", "aws/codebuild/amazonlinux2-aarch64-standard:3.0"),
}


class PetsBuild(Construct):
    """`repository`, and `project`, to which a build says MODEL_URI and IMAGE_TAG; `models` is where models lie."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: EnvironmentConfig, data: s3.IBucket, models: str
    ) -> None:
        super().__init__(scope, construct_id)
        self.repository = self._build_repository(config)
        with tempfile.TemporaryDirectory(prefix="updraft-pets-") as context:
            stage_application(Path(context))
            self.source = s3_assets.Asset(self, "Source", path=context)
        logs = log_group(
            self, "Logs", name=f"{config.ssm_prefix}/{IMAGE}-build", retention_days=config.log_retention_days
        )
        role = iam.Role(
            self,
            "Role",
            description="Builds the application image",
            assumed_by=iam.ServicePrincipal(
                "codebuild.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(self).account}},
            ),
        )
        self._grant(role, logs.log_group_arn, data.arn_for_objects(f"{models}*"))
        self.project = self._build_project(config, role, logs.log_group_name)
        # A role without its policy can't write the log of its first build.
        self.project.node.add_dependency(role)

    def _build_repository(self, config: EnvironmentConfig) -> ecr.Repository:
        repository = ecr.Repository(
            self,
            "Repository",
            repository_name=f"{config.prefix}-pets",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.KMS,
            empty_on_delete=not config.keep_data_on_destroy,
            removal_policy=data_removal_policy(config),
        )
        repository.add_lifecycle_rule(max_image_count=IMAGES_KEPT)
        return repository

    def _build_project(
        self, config: EnvironmentConfig, role: iam.Role, log_group_name: str
    ) -> codebuild.CfnProject:
        kind, image = ENVIRONMENTS[config.architecture]
        project = codebuild.CfnProject(
            self,
            "Project",
            name=f"{config.prefix}-{IMAGE}",
            description="Builds the application image around a model",
            service_role=role.role_arn,
            source=codebuild.CfnProject.SourceProperty(
                type="S3", location=f"{self.source.s3_bucket_name}/{self.source.s3_object_key}"
            ),
            artifacts=codebuild.CfnProject.ArtifactsProperty(type="NO_ARTIFACTS"),
            environment=codebuild.CfnProject.EnvironmentProperty(
                type=kind,
                image=image,
                compute_type="BUILD_GENERAL1_SMALL",
                privileged_mode=True,
                environment_variables=[
                    codebuild.CfnProject.EnvironmentVariableProperty(
                        name="REPOSITORY_URI", value=self.repository.repository_uri
                    )
                ],
            ),
            logs_config=codebuild.CfnProject.LogsConfigProperty(
                cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=log_group_name
                )
            ),
            timeout_in_minutes=TIMEOUT_MINUTES,
            queued_timeout_in_minutes=QUEUED_MINUTES,
        )
        waive(
            project,
            "It keeps no artifact: the image goes to ECR, which encrypts it",
            "AwsSolutions-CB4",
        )
        return project

    def _grant(self, role: iam.Role, log_group_arn: str, models: str) -> None:
        self.repository.grant_pull_push(role)
        for actions, resource in (
            (
                ["s3:GetObject", "s3:GetObjectVersion"],
                self.source.bucket.arn_for_objects(self.source.s3_object_key),
            ),
            (["s3:GetObject"], models),
            (["logs:CreateLogStream", "logs:PutLogEvents"], log_group_arn),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=[resource]))
        waive(
            policy_of(role),
            "The models of the pipeline, the streams of its log group, and ecr:GetAuthorizationToken, which takes "
            "no resource",
            "AwsSolutions-IAM5",
        )


def stage_application(context: Path) -> None:
    """Copy what the application's image is built from, all but the model, to an empty folder."""
    for file in ("Dockerfile", "requirements.txt", "buildspec.yml"):
        shutil.copyfile(ROOT / "docker" / IMAGE / file, context / file)
    for source in SOURCES:
        target = context / "ml" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "ml" / source, target)
