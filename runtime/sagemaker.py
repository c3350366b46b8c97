"""SageMaker jobs as deferred tasks: one operator and one trigger for training, processing, tuning and transform.

The job's name is made from the task's try, so a submission whose answer was lost finds its own job again. Waiting has
no limit of its own: the job's hard `MaxRuntimeInSeconds` bounds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from botocore.exceptions import BotoCoreError, ClientError

from runtime.settings import WorkflowSettings, job_name, tags, workflow_settings

ENDED = frozenset({"Completed", "Failed", "Stopped"})
# A job may wait for its instance, upload its model and report before it is seen to have ended.
SLACK_SECONDS = 1800
MOST_FAILED_POLLS = 20


@dataclass(frozen=True)
class JobKind:
    """How one kind of job is called in the API."""

    noun: str
    name_key: str
    status_key: str

    @property
    def create(self) -> str:
        return f"create_{self.noun}"

    @property
    def describe(self) -> str:
        return f"describe_{self.noun}"


KINDS = {
    "training": JobKind("training_job", "TrainingJobName", "TrainingJobStatus"),
    "processing": JobKind("processing_job", "ProcessingJobName", "ProcessingJobStatus"),
    "transform": JobKind("transform_job", "TransformJobName", "TransformJobStatus"),
    "tuning": JobKind(
        "hyper_parameter_tuning_job", "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"
    ),
}


class SageMakerJobOperator(BaseOperator):  # type: ignore[misc]
    """Starts a job and waits for it without holding a slot.

    :param kind: `training`, `processing`, `transform` or `tuning`
    :param request: called with the environment's settings and `op_kwargs`; returns the API request without a name
    :param op_kwargs: templated keyword arguments of `request`

    Returns `name`, `billable_seconds`, and what the job made: `model_uri` (training and tuning) or `output_uri`.
    """

    template_fields = ("op_kwargs",)

    def __init__(
        self,
        *,
        kind: str,
        request: Callable[..., dict[str, Any]],
        op_kwargs: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        # Each key of the result is an XCom of its own: `operator.output["model_uri"]`.
        super().__init__(multiple_outputs=True, **kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        self.kind = kind
        self.request = request
        self.op_kwargs = op_kwargs

    def execute(self, context: Any) -> None:
        """Submit the job, then defer."""
        settings = workflow_settings()
        kind, name = KINDS[self.kind], job_name(context, kind=self.kind)
        request = {**self.request(settings, **self.op_kwargs), kind.name_key: name, "Tags": tags(context)}
        check_limit(self.kind, request, settings)
        client = SageMakerHook(aws_conn_id="aws_default").get_conn()
        try:
            getattr(client, kind.create)(**request)
            self.log.info("started %s job %s", self.kind, name)
        except client.exceptions.ResourceInUse:
            self.log.info("%s job %s is there already: waiting for it", self.kind, name)
        self.defer(
            trigger=SageMakerJobTrigger(kind=self.kind, name=name, poll_seconds=settings.poll_seconds),
            method_name="resume",
            timeout=timedelta(seconds=settings.max_runtime_seconds * tuning_jobs(request) + SLACK_SECONDS),
        )

    def resume(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Take the job's end: what it made, or the reason why it failed."""
        name, kind = event["name"], KINDS[self.kind]
        client = SageMakerHook(aws_conn_id="aws_default").get_conn()
        job = getattr(client, kind.describe)(**{kind.name_key: name})
        status = job[kind.status_key]
        self.log.info("%s job %s: %s", self.kind, name, status)
        if status != "Completed":
            raise AirflowException(
                f"{self.kind} job {name} ended {status}: {job.get('FailureReason', 'no reason given')}"
            )
        return {"name": name, **results(self.kind, job, client)}


class SageMakerJobTrigger(BaseTrigger):  # type: ignore[misc]
    """Polls one job until it has ended; errors of the API are borne with, as long as they pass."""

    def __init__(self, *, kind: str, name: str, poll_seconds: int) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The arguments that make this trigger again."""
        return (
            "runtime.sagemaker.SageMakerJobTrigger",
            {"kind": self.kind, "name": self.name, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when the job has ended."""
        kind, failed_polls, told = KINDS[self.kind], 0, ""
        async with await SageMakerHook(aws_conn_id="aws_default").get_async_conn() as client:
            while True:
                try:
                    job = await getattr(client, kind.describe)(**{kind.name_key: self.name})
                    failed_polls = 0
                except (BotoCoreError, ClientError) as error:
                    failed_polls += 1
                    if failed_polls >= MOST_FAILED_POLLS:
                        raise
                    self.log.warning("the state of %s is unknown for now: %s", self.name, error)
                else:
                    status = job[kind.status_key]
                    progress = f"{status} {job.get('SecondaryStatus', '')}".strip()
                    if progress != told:
                        self.log.info("%s job %s: %s", self.kind, self.name, progress)
                        told = progress
                    if status in ENDED:
                        yield TriggerEvent({"name": self.name, "status": status})
                        return
                await asyncio.sleep(self.poll_seconds)


def check_limit(kind: str, request: Mapping[str, Any], settings: WorkflowSettings) -> None:
    """Raise ValueError unless the job ends by itself within the environment's limit."""
    if kind == "transform":
        return
    holder = request["TrainingJobDefinition"] if kind == "tuning" else request
    limit = holder.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    if limit is None or limit > settings.max_runtime_seconds:
        raise ValueError(
            f"StoppingCondition.MaxRuntimeInSeconds: {limit} came; every job has a hard limit of at most "
            f"{settings.max_runtime_seconds} s (workflows.max_runtime_seconds of the environment)"
        )


def tuning_jobs(request: Mapping[str, Any]) -> int:
    """How many trainings a request may run one after the other."""
    limits = request.get("HyperParameterTuningJobConfig", {}).get("ResourceLimits", {})
    return int(limits.get("MaxNumberOfTrainingJobs", 1))


def results(kind: str, job: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """What a completed job made, and how long it was billed for."""
    if kind == "training":
        return {
            "model_uri": job["ModelArtifacts"]["S3ModelArtifacts"],
            "billable_seconds": job["BillableTimeInSeconds"],
        }
    if kind == "tuning":
        best = job["BestTrainingJob"]["TrainingJobName"]
        training = client.describe_training_job(TrainingJobName=best)
        return {
            "model_uri": training["ModelArtifacts"]["S3ModelArtifacts"],
            "best_training_job": best,
            "hyperparameters": job["BestTrainingJob"]["TunedHyperParameters"],
            "billable_seconds": training["BillableTimeInSeconds"],
        }
    if kind == "transform":
        return {"output_uri": job["TransformOutput"]["S3OutputPath"]}
    outputs = job["ProcessingOutputConfig"]["Outputs"]
    return {"output_uri": outputs[0]["S3Output"]["S3Uri"]}
