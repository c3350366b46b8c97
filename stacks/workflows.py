"""What SageMaker workflows need: the jobs' role, the training image, the model registry, and their settings."""

from __future__ import annotations

import tomllib
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.airflow import AirflowStack
from stacks.config import ROOT, EnvironmentConfig
from stacks.constructs.alert_topic import alert_topic
from stacks.constructs.image_context import Image
from stacks.constructs.notebook import Notebook
from stacks.constructs.private_bucket import allow_objects
from stacks.constructs.reaper import Reaper
from stacks.constructs.removal import data_removal_policy
from stacks.constructs.spark import SparkOnEmr, SparkTask
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

# Every kind of SageMaker resource that a DAG makes is named with the environment's prefix.
OWNED = (
    "training-job",
    "processing-job",
    "transform-job",
    "hyper-parameter-tuning-job",
    "model",
    "endpoint",
    "endpoint-config",
)
PRICES = ROOT / "ops" / "prices.toml"


class WorkflowsStack(cdk.Stack):
    """`role` (of the jobs), `image` (of trainings), `settings` (what DAGs read)."""

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
        self._config = config
        # SageMaker's CPU and GPU instances are x86, whatever the services run on.
        self.image = Image(self, "TrainingImage", name="training", config=config, architecture="x86_64").asset
        self.role = self._build_job_role(storage)
        self._let_jobs_into(network)
        self.model_packages = self._build_model_packages(
            "ModelPackages", name="flights", description="Models that predict whether a flight arrives late"
        )
        self.insurance_model_packages = self._build_model_packages(
            "InsuranceModelPackages",
            name="insurance",
            description="Models that predict whether a policy has a claim within a year",
        )
        self.failures = alert_topic(
            self,
            "Failures",
            display_name=f"{config.prefix} failed DAG runs",
            email=config.workflows.alarm_email,
        )
        self._allow_tasks(airflow)
        self.spark = self._build_spark(network, storage, airflow)
        self._allow_notifications(airflow)
        self.settings = ssm.StringParameter(
            self,
            "Settings",
            parameter_name=f"{config.ssm_prefix}/workflows",
            string_value=self.to_json_string(self._settings(network, storage)),
            description="What DAGs need to know to start SageMaker jobs",
        )
        self._build_budget()
        self.reaper = Reaper(self, "Reaper", config=config, network=network, storage=storage)
        if config.workflows.notebook is not None:
            notebook = Notebook(
                self,
                "Notebook",
                config=config,
                settings=config.workflows.notebook,
                network=network,
                storage=storage,
                job_role=self.role,
                settings_parameter=f"{config.ssm_prefix}/workflows",
            )
            cdk.CfnOutput(self, "NotebookName", value=notebook.instance.attr_notebook_instance_name)
        cdk.CfnOutput(self, "ReaperFunctionName", value=self.reaper.function.function_name)
        cdk.CfnOutput(self, "JobsTopicArn", value=self.reaper.topic.topic_arn)
        cdk.CfnOutput(self, "FailuresTopicArn", value=self.failures.topic_arn)
        cdk.CfnOutput(self, "SettingsParameter", value=self.settings.parameter_name)
        cdk.CfnOutput(self, "ModelPackageGroupName", value=self.model_packages.model_package_group_name)

    def _settings(self, network: NetworkStack, storage: StorageStack) -> dict[str, Any]:
        workflows = self._config.workflows
        return {
            "region": self._config.region,
            "role_arn": self.role.role_arn,
            "training_image": self.image.image_uri,
            "data_bucket": storage.data.bucket_name,
            "model_package_group": self.model_packages.model_package_group_name,
            "subnet_ids": network.service_subnet_ids,
            "security_group_ids": [network.groups.jobs.security_group_id],
            "instance_types": workflows.instance_types.model_dump(),
            "max_runtime_seconds": workflows.max_runtime_seconds,
            "poll_seconds": workflows.poll_seconds,
            "monthly_budget_usd": workflows.monthly_budget_usd,
            "usd_per_hour": _prices(),
            "spark": self.spark,
            "failures_topic_arn": self.failures.topic_arn,
            "insurance": {
                "model_package_group": self.insurance_model_packages.model_package_group_name,
            },
        }

    def _build_model_packages(
        self, construct_id: str, *, name: str, description: str
    ) -> sagemaker.CfnModelPackageGroup:
        group = sagemaker.CfnModelPackageGroup(
            self,
            construct_id,
            model_package_group_name=f"{self._config.prefix}-{name}",
            model_package_group_description=description,
        )
        group.apply_removal_policy(data_removal_policy(self._config))
        return group

    def _build_job_role(self, storage: StorageStack) -> iam.Role:
        role = iam.Role(
            self,
            "JobRole",
            description="Of SageMaker jobs",
            assumed_by=iam.ServicePrincipal(
                "sagemaker.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            ),
        )
        allow_objects(role, storage.data)
        self.image.repository.grant_pull(role)
        job_logs = self.format_arn(
            service="logs",
            resource="log-group",
            resource_name="/aws/sagemaker/*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[
                    "logs:CreateLogGroup",
                    "logs:CreateLogStream",
                    "logs:PutLogEvents",
                    "logs:DescribeLogStreams",
                ],
                resources=[job_logs],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
            )
        )
        waive(
            policy_of(role),
            "The data bucket's objects, SageMaker's own log groups, and two actions that take no resource "
            "(ecr:GetAuthorizationToken, cloudwatch:PutMetricData)",
            "AwsSolutions-IAM5",
        )
        return role

    def _let_jobs_into(self, network: NetworkStack) -> None:
        """What SageMaker does with a job's role to put the job into the VPC.

        Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
        """
        policy = iam.ManagedPolicy(
            self,
            "JobNetworkPolicy",
            description="Lets jobs have network interfaces in the VPC",
            roles=[self.role],
            statements=[
                iam.PolicyStatement(
                    actions=[
                        "ec2:CreateNetworkInterface",
                        "ec2:CreateNetworkInterfacePermission",
                        "ec2:DeleteNetworkInterface",
                    ],
                    resources=[
                        self.format_arn(service="ec2", resource=resource, resource_name=name)
                        for resource, name in (
                            ("network-interface", "*"),
                            *(("subnet", subnet) for subnet in network.service_subnet_ids),
                            ("security-group", network.groups.jobs.security_group_id),
                        )
                    ],
                ),
                iam.PolicyStatement(
                    actions=[
                        "ec2:DeleteNetworkInterfacePermission",
                        "ec2:DescribeDhcpOptions",
                        "ec2:DescribeNetworkInterfaces",
                        "ec2:DescribeSecurityGroups",
                        "ec2:DescribeSubnets",
                        "ec2:DescribeVpcs",
                    ],
                    resources=["*"],
                ),
            ],
        )
        waive(
            policy,
            "Interfaces get their ids when a job starts, and the other actions of EC2 take no resource",
            "AwsSolutions-IAM5",
        )

    def _allow_tasks(self, airflow: AirflowStack) -> None:
        """A policy of this stack on the tasks' role: granting from there would make a cycle of stacks."""
        policy = iam.ManagedPolicy(
            self,
            "TaskPolicy",
            description="Starts, watches and stops this environment's SageMaker jobs",
            roles=[airflow.task_role],
            statements=[
                iam.PolicyStatement(
                    actions=[
                        f"sagemaker:{verb}{noun}"
                        for noun in (
                            "TrainingJob",
                            "ProcessingJob",
                            "TransformJob",
                            "HyperParameterTuningJob",
                        )
                        for verb in ("Create", "Describe", "Stop")
                    ]
                    + ["sagemaker:CreateModel", "sagemaker:DescribeModel", "sagemaker:DeleteModel"]
                    + ["sagemaker:AddTags", "sagemaker:ListTags"],
                    resources=[self._owned(kind) for kind in OWNED],
                ),
                iam.PolicyStatement(
                    actions=[
                        *(f"sagemaker:{verb}Endpoint" for verb in ("Create", "Describe", "Update", "Delete")),
                        "sagemaker:CreateEndpointConfig",
                        "sagemaker:DescribeEndpointConfig",
                        "sagemaker:DeleteEndpointConfig",
                        "sagemaker:InvokeEndpoint",
                    ],
                    resources=[self._owned("endpoint"), self._owned("endpoint-config")],
                ),
                *self._notebook_statements(),
                # Lists have no narrower resource; the budget gate reads what was paid for.
                iam.PolicyStatement(
                    actions=[
                        "sagemaker:ListTrainingJobs",
                        "sagemaker:ListProcessingJobs",
                        "sagemaker:ListTransformJobs",
                        "sagemaker:ListEndpoints",
                    ],
                    resources=["*"],
                ),
                iam.PolicyStatement(
                    actions=[
                        "sagemaker:CreateModelPackage",
                        "sagemaker:DescribeModelPackage",
                        "sagemaker:DescribeModelPackageGroup",
                        "sagemaker:UpdateModelPackage",
                        "sagemaker:ListModelPackages",
                        "sagemaker:AddTags",
                    ],
                    resources=[self._owned("model-package-group"), self._owned("model-package")],
                ),
                iam.PolicyStatement(
                    actions=["iam:PassRole"],
                    resources=[self.role.role_arn],
                    conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
                ),
                iam.PolicyStatement(
                    actions=["logs:DescribeLogStreams", "logs:GetLogEvents"],
                    resources=[
                        self.format_arn(
                            service="logs",
                            resource="log-group",
                            resource_name="/aws/sagemaker/*",
                            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                        )
                    ],
                ),
            ],
        )
        waive(
            policy,
            "Jobs get their names when they are made: only those with this environment's prefix, and their logs",
            "AwsSolutions-IAM5",
        )

    def _build_spark(
        self, network: NetworkStack, storage: StorageStack, airflow: AirflowStack
    ) -> dict[str, Any]:
        """The chosen engine, if any, with the tasks' permission to use it; returns what DAGs know of it."""
        spark = self._config.spark
        if spark.engine == "databricks" and spark.databricks is not None:
            return {"engine": spark.engine, **spark.databricks.model_dump()}
        if spark.engine == "ecs":
            built: SparkTask | SparkOnEmr = SparkTask(
                self, "Spark", config=self._config, network=network, storage=storage, airflow=airflow
            )
        elif spark.engine == "emr-serverless":
            built = SparkOnEmr(self, "Spark", config=self._config, storage=storage)
        else:
            return {"engine": "none"}
        policy = iam.ManagedPolicy(
            self,
            "SparkPolicy",
            description="Starts, watches and stops Spark runs",
            roles=[airflow.task_role],
            statements=built.statements,
        )
        waive(
            policy,
            "Any revision of one family and the tasks of one cluster, or the jobs of one application: they get their "
            "ids when they are started; ecs:ListTasks takes no resource",
            "AwsSolutions-IAM5",
        )
        return built.settings

    def _allow_notifications(self, airflow: AirflowStack) -> None:
        """The dag-processor runs a DAG's callbacks, a worker those of its task."""
        iam.ManagedPolicy(
            self,
            "NotificationPolicy",
            description="Tells people of failed DAG runs",
            roles=[airflow.control_role, airflow.task_role],
            statements=[iam.PolicyStatement(actions=["sns:Publish"], resources=[self.failures.topic_arn])],
        )

    def _notebook_statements(self) -> list[iam.PolicyStatement]:
        if self._config.workflows.notebook is None:
            return []
        return [
            iam.PolicyStatement(
                actions=[f"sagemaker:{verb}NotebookInstance" for verb in ("Describe", "Start", "Stop")],
                resources=[
                    self.format_arn(
                        service="sagemaker",
                        resource="notebook-instance",
                        resource_name=f"{self._config.prefix}-notebook",
                    )
                ],
            )
        ]

    def _owned(self, kind: str) -> str:
        return self.format_arn(service="sagemaker", resource=kind, resource_name=f"{self._config.prefix}-*")

    def _build_budget(self) -> None:
        workflows = self._config.workflows
        if workflows.alarm_email is None:
            return
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=f"{self._config.prefix}-sagemaker",
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=workflows.monthly_budget_usd, unit="USD"),
                cost_filters={"Service": ["Amazon SageMaker"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN", notification_type="ACTUAL", threshold=80
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(
                            address=workflows.alarm_email, subscription_type="EMAIL"
                        )
                    ],
                )
            ],
        )


def _prices() -> dict[str, float]:
    """USD per hour by SageMaker instance type."""
    prices: dict[str, float] = tomllib.loads(PRICES.read_text(encoding="utf-8"))["sagemaker_usd_per_hour"]
    return prices
