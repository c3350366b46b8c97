"""The notebook instance: made stopped, and stopped again by itself when nothing runs on it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import ROOT, EnvironmentConfig
from stacks.constructs.parameters import parameter_arn
from stacks.constructs.private_bucket import allow_objects
from stacks.network import NetworkStack
from stacks.sections import Notebook as NotebookConfig
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

FOLDER = ROOT / "notebooks"
HOME = "/home/ec2-user/SageMaker"
PROGRAM = "/opt/updraft-lifecycle.py"
# Writes the program, and runs it with the first Python that has boto3: the system's, or Jupyter's own.
SCRIPT = """#!/bin/bash
set -euo pipefail
cat > {program} <<'PROGRAM'
{text}
PROGRAM
for python in /usr/bin/python3 /home/ec2-user/anaconda3/envs/JupyterSystemEnv/bin/python3; do
  if "$python" -c 'import boto3' 2> /dev/null; then break; fi
done
{commands}
"""
VOLUME_GIB = 5


class Notebook(Construct):
    """`instance`: its trainings are named `{prefix}-nb-…`, and may write below `notebooks/` of the data bucket."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        settings: NotebookConfig,
        network: NetworkStack,
        storage: StorageStack,
        job_role: iam.Role,
        settings_parameter: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._stack = cdk.Stack.of(self)
        name = f"{config.prefix}-notebook"
        files = assets.Asset(self, "Files", path=str(FOLDER), exclude=["*", "!*.ipynb", "!requirements.txt"])
        self.role = iam.Role(
            self,
            "Role",
            description="Of the notebook instance",
            assumed_by=iam.ServicePrincipal(
                "sagemaker.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": self._stack.account}},
            ),
        )
        allow_objects(self.role, storage.data, "notebooks/")
        self._grant(name, files, job_role, settings_parameter)
        lifecycle = sagemaker.CfnNotebookInstanceLifecycleConfig(
            self,
            "Lifecycle",
            notebook_instance_lifecycle_config_name=name,
            on_create=[
                self._hook(f'nohup "$python" {PROGRAM} stop --name {name} > /var/log/updraft.log 2>&1 &')
            ],
            on_start=[
                self._hook(
                    f'"$python" {PROGRAM} bring --bucket {files.s3_bucket_name} --key {files.s3_object_key} '
                    f"--folder {HOME}\n"
                    f"chown -R ec2-user:ec2-user {HOME}\n"
                    f'nohup "$python" {PROGRAM} stop-when-idle --name {name} '
                    f"--idle-seconds {settings.idle_minutes * 60} >> /var/log/updraft.log 2>&1 &"
                )
            ],
        )
        self.instance = sagemaker.CfnNotebookInstance(
            self,
            "Instance",
            notebook_instance_name=name,
            instance_type=settings.instance_type,
            role_arn=self.role.role_arn,
            subnet_id=network.service_subnet_ids[0],
            security_group_ids=[network.groups.jobs.security_group_id],
            direct_internet_access="Disabled",
            root_access="Disabled",
            instance_metadata_service_configuration=sagemaker.CfnNotebookInstance.InstanceMetadataServiceConfigurationProperty(
                minimum_instance_metadata_service_version="2"
            ),
            platform_identifier="notebook-al2023-v1",
            volume_size_in_gb=VOLUME_GIB,
            lifecycle_config_name=lifecycle.attr_notebook_instance_lifecycle_config_name,
        )
        self.instance.node.add_dependency(self.role)
        waive(
            self.instance,
            "Its volume is encrypted with the key that AWS keeps for SageMaker; the data stays in the bucket",
            "AwsSolutions-SM2",
        )

    def _hook(
        self, commands: str
    ) -> sagemaker.CfnNotebookInstanceLifecycleConfig.NotebookInstanceLifecycleHookProperty:
        text = (FOLDER / "lifecycle.py").read_text(encoding="utf-8")
        script = SCRIPT.format(program=PROGRAM, text=text, commands=commands)
        return sagemaker.CfnNotebookInstanceLifecycleConfig.NotebookInstanceLifecycleHookProperty(
            content=cdk.Fn.base64(script)
        )

    def _grant(self, name: str, files: assets.Asset, job_role: iam.Role, settings_parameter: str) -> None:
        jobs = [
            self._sagemaker(kind, f"{self._config.prefix}-nb-*")
            for kind in ("training-job", "hyper-parameter-tuning-job")
        ]
        logs = self._stack.format_arn(
            service="logs",
            resource="log-group",
            resource_name="/aws/sagemaker/TrainingJobs:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for actions, resources in (
            (["s3:GetObject"], [files.bucket.arn_for_objects(files.s3_object_key)]),
            (["ssm:GetParameter"], [parameter_arn(self._stack, settings_parameter)]),
            (
                ["sagemaker:DescribeNotebookInstance", "sagemaker:StopNotebookInstance"],
                [self._sagemaker("notebook-instance", name)],
            ),
            (
                [
                    f"sagemaker:{verb}{noun}"
                    for noun in ("TrainingJob", "HyperParameterTuningJob")
                    for verb in ("Create", "Describe", "Stop")
                ]
                + [
                    "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
                    "sagemaker:AddTags",
                    "sagemaker:ListTags",
                ],
                jobs,
            ),
            (["logs:DescribeLogStreams", "logs:GetLogEvents"], [logs]),
        ):
            self.role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
        self.role.add_to_policy(
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[job_role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            )
        )
        waive(
            policy_of(self.role),
            "Its own prefix of the data bucket, and jobs and log streams that get their names when they are made",
            "AwsSolutions-IAM5",
        )

    def _sagemaker(self, kind: str, name: str) -> str:
        return self._stack.format_arn(service="sagemaker", resource=kind, resource_name=name)
