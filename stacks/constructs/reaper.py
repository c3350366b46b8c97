"""The Lambda that ends what has no owner on SageMaker, its schedule, and where it tells what it did."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_environment import METRICS_DATABASE_USER
from stacks.constructs.alert_topic import alert_topic
from stacks.constructs.database_reader import reader_environment, reader_files
from stacks.constructs.python_function import PythonFunction
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.waivers import policy_of, waive

MEMORY_MIB = 256
INTERVAL = cdk.Duration.minutes(5)
# Tags of a new job, and its task instance's state, are there by then.
GRACE = cdk.Duration.minutes(1)
STOPPABLE = {
    "training-job": "TrainingJob",
    "processing-job": "ProcessingJob",
    "transform-job": "TransformJob",
    "hyper-parameter-tuning-job": "HyperParameterTuningJob",
}


class Reaper(Construct):
    """`function`, and `topic` that tells people what it stopped and when it can't do its work."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        storage: StorageStack,
    ) -> None:
        super().__init__(scope, construct_id)
        self.topic = alert_topic(
            self,
            "Topic",
            display_name=f"{config.prefix} SageMaker jobs",
            email=config.workflows.alarm_email,
        )
        notebook = config.workflows.notebook
        self.function = PythonFunction(
            self,
            "Function",
            name="reaper",
            entry="handler",
            timeout=cdk.Duration.minutes(2),
            files=reader_files(config),
            memory_size=MEMORY_MIB,
            vpc=network.vpc,
            vpc_subnets=network.service_subnets,
            allow_public_subnet=network.assigns_public_ip,
            security_groups=[network.groups.reaper],
            environment={
                "UPDRAFT_PROJECT": config.project,
                "UPDRAFT_ENVIRONMENT": config.environment,
                "UPDRAFT_TOPIC_ARN": self.topic.topic_arn,
                "UPDRAFT_GRACE_SECONDS": str(GRACE.to_seconds()),
                "UPDRAFT_NOTEBOOK_HOURS": str(notebook.longest_hours if notebook else 0),
                "UPDRAFT_DRY_RUN": "false",
                **reader_environment(storage),
            },
            retry_attempts=0,
        ).function
        self._grant(config, storage)
        events.Rule(
            self,
            "Schedule",
            schedule=events.Schedule.rate(INTERVAL),
            targets=[targets.LambdaFunction(self.function, retry_attempts=0)],
        )
        alarm = cloudwatch.Alarm(
            self,
            "Errors",
            metric=self.function.metric_errors(period=INTERVAL),
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description="The reaper can't compare SageMaker with Airflow: jobs without an owner run on",
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))

    def _grant(self, config: EnvironmentConfig, storage: StorageStack) -> None:
        storage.database.grant_connect(self.function, METRICS_DATABASE_USER)
        self.topic.grant_publish(self.function)
        stack = cdk.Stack.of(self)

        def arn(kind: str) -> str:
            return stack.format_arn(service="sagemaker", resource=kind, resource_name=f"{config.prefix}-*")

        owned = [arn(kind) for kind in STOPPABLE]
        has_notebook = config.workflows.notebook is not None
        lists = [*STOPPABLE.values(), "Endpoint", *(["NotebookInstance"] if has_notebook else [])]
        stops = [f"sagemaker:Stop{words}" for words in STOPPABLE.values()]
        endpoints, configs = arn("endpoint"), arn("endpoint-config")
        notebooks = [arn("notebook-instance")] if has_notebook else []
        ours = {
            "StringEquals": {
                "aws:ResourceTag/updraft:project": config.project,
                "aws:ResourceTag/updraft:environment": config.environment,
            }
        }
        for statement in (
            # SageMaker has no narrower resource for its lists.
            iam.PolicyStatement(actions=[f"sagemaker:List{words}s" for words in lists], resources=["*"]),
            iam.PolicyStatement(actions=["sagemaker:ListTags"], resources=[*owned, endpoints, *notebooks]),
            iam.PolicyStatement(
                actions=["sagemaker:AddTags", "sagemaker:UpdateTrainingJob", *stops],
                resources=owned,
                conditions=ours,
            ),
            iam.PolicyStatement(actions=["sagemaker:DescribeEndpoint"], resources=[endpoints]),
            iam.PolicyStatement(
                actions=["sagemaker:AddTags", "sagemaker:DeleteEndpoint", "sagemaker:UpdateEndpoint"],
                resources=[endpoints],
                conditions=ours,
            ),
            # What an endpoint goes back to may be a configuration that others made, without our tags.
            iam.PolicyStatement(
                actions=["sagemaker:UpdateEndpoint", "sagemaker:DeleteEndpointConfig"], resources=[configs]
            ),
            *(
                iam.PolicyStatement(
                    actions=["sagemaker:AddTags", "sagemaker:StopNotebookInstance"],
                    resources=[each],
                    conditions=ours,
                )
                for each in notebooks
            ),
        ):
            self.function.add_to_role_policy(statement)
        waive(
            policy_of(self.function.role),
            "Jobs and endpoints are named with the environment's prefix, and SageMaker's lists and network interfaces take no "
            "resource",
            "AwsSolutions-IAM5",
        )
