"""The task that owns a SageMaker job: training, processing, tuning or transform, deferred or holding its slot."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)

from runtime.lineage.notes import note
from runtime.sagemaker import requests
from runtime.sagemaker.jobs import RETRIES, Job
from runtime.sagemaker.kinds import KINDS, billable_seconds, cluster, places
from runtime.sagemaker.ownership import Claim, decide, first_free, is_active
from runtime.sagemaker.progress import DeadlineError, Watched
from runtime.sagemaker.spend import spent_this_month
from runtime.sagemaker.trigger import TIMED_OUT, SageMakerJobTrigger, follow_with_hooks, task_state
from runtime.settings import WorkflowSettings, job_name, tags, workflow_settings

# A job may wait for its instance, upload its model and report before it is seen to have ended.
SLACK_SECONDS = 1800
# SIGKILL follows a task's SIGTERM after five seconds.
STATE_SECONDS = 2
# States in which a SIGTERM came from a worker that leaves, and not from a user.
STILL_RUNNING = frozenset({"running", "queued", "scheduled", "deferred"})


class SageMakerJobOperator(BaseOperator):  # type: ignore[misc]
    """Runs a SageMaker job that ends with its task and is never paid twice.

    A retry, a lost worker, and a restart of scheduler or triggerer go on with the job that is there. A clear, a mark,
    a time-out or a deletion stops it. A clear of a finished task starts a new one.

    :param kind: `training`, `processing`, `transform` or `tuning`
    :param request: called with the environment's settings and `op_kwargs`; returns the API request without name
        and tags; `StoppingCondition.MaxRuntimeInSeconds` is required
    :param op_kwargs: templated keyword arguments of `request`
    :param spot: train on spot instances; the request needs a `CheckpointConfig`
    :param deferrable: wait in the triggerer, or hold a worker's slot
    :param aws_conn_id: Airflow's connection to AWS

    Returns `name`, `billable_seconds`, and what the job made: `model_uri` (training and tuning) or `output_uri` (the
    first output; None for a processing job without one).
    """

    template_fields = ("op_kwargs",)

    def __init__(
        self,
        *,
        kind: str,
        request: Callable[..., dict[str, Any]],
        op_kwargs: Mapping[str, Any],
        spot: bool = False,
        deferrable: bool = True,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        # Each key of the result is an XCom of its own: `operator.output["model_uri"]`.
        super().__init__(multiple_outputs=True, **kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        self.kind = kind
        self.request = request
        self.op_kwargs = op_kwargs
        self.spot = spot
        self.deferrable = deferrable
        self.aws_conn_id = aws_conn_id
        self._owned: Job | None = None
        self._instance: Any = None

    @cached_property
    def client(self) -> Any:
        """boto3's client, which retries with jitter."""
        return SageMakerHook(aws_conn_id=self.aws_conn_id, config=RETRIES).get_conn()

    # The task's life

    def execute(self, context: Any) -> dict[str, Any]:
        """Take or start the job, then wait for its end."""
        started_at = time.time()
        settings = workflow_settings()
        request = {**self.request(settings, **self.op_kwargs), "Tags": tags(context)}
        request = requests.in_vpc(self.kind, request, settings)
        requests.check_limit(self.kind, request, settings)
        if self.spot:
            request = requests.with_spot(self.kind, request)
        longest = requests.longest_seconds(self.kind, request, settings)
        self._instance = context["ti"]
        try:
            job, submission = self._own_job(context, request, settings)
            note(
                tags={"sagemaker_job_name": job.name, "sagemaker_job_kind": self.kind},
                instance=self._instance,
            )
            watched = self._watched(job, request, settings, started_at=started_at, longest_seconds=longest)
            if self.deferrable:
                self.defer(
                    trigger=SageMakerJobTrigger(
                        **watched.serialize(), aws_conn_id=self.aws_conn_id, request=submission
                    ),
                    method_name="resume",
                    timeout=timedelta(seconds=longest + SLACK_SECONDS),
                )
            if submission is not None:
                job.submit(submission)
                self.log.info("started %s job %s", self.kind, job.name)
            status = asyncio.run(follow_with_hooks(watched, self.aws_conn_id, self.log.info))
        except (AirflowTaskTimeout, DeadlineError) as error:
            self._stop("execution time-out")
            raise AirflowTaskTimeout("the SageMaker job is told to stop: the task's time is up") from error
        return self._take_end(job, status)

    def resume(self, context: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the job's end: what it made, or the reason why it failed."""
        if event is None:
            # So Airflow resumes a task that was cleared in the moment of its deferral.
            return self.execute(context)
        self._instance = context["ti"]
        self._owned = Job(self.client, self.kind, event["name"])
        if event["status"] == TIMED_OUT:
            raise AirflowTaskTimeout(f"{self.kind} job {event['name']} was told to stop: execution time-out")
        return self._take_end(self._owned, event["status"])

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """As Airflow's, and a deferral that took too long takes its job with it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            claim = Claim.read(context["task_state_store"])
            if claim is not None:
                self._owned = Job(self.client, self.kind, claim.name)
                self._stop("the deferral took longer than the job may")
            raise

    def on_kill(self) -> None:
        """Stop the job when a user or a time-out has ended the task, and let it go on when only the worker leaves."""
        if self._owned is None:
            return
        state = self._state_now()
        if state is None or state in STILL_RUNNING:
            self.log.info(
                "job %s goes on: the task is %s, so a retry takes it over",
                self._owned.name,
                state or "unknown",
            )
            return
        self._stop(f"the task was ended while it ran: it is now {state}")

    # The job

    def _own_job(
        self, context: Any, request: dict[str, Any], settings: WorkflowSettings
    ) -> tuple[Job, dict[str, Any] | None]:
        """The job that is this task's from here on, and the request to submit unless it is there already."""
        store, max_tries = context["task_state_store"], context["ti"].max_tries
        claim = Claim.read(store)
        start = 1
        if claim is not None:
            job = self._owned = Job(self.client, self.kind, claim.name)
            decision = decide(claim, job.status(), max_tries=max_tries)
            self.log.info(
                "job %s of an earlier try: %s, because %s", job.name, decision.action, decision.reason
            )
            if decision.action == "take":
                return job, None
            if decision.action == "submit":
                return job, self._submission(request, settings, number=claim.number)
            start = claim.number + 1
            self._end(job, decision.reason)

        def name_of(number: int) -> str:
            return job_name(context, kind=self.kind, number=number)

        def status_of(name: str) -> str | None:
            earlier = Job(self.client, self.kind, name)
            if is_active(status := earlier.status()):
                self._end(earlier, "its run was deleted")
            return status

        number = first_free(name_of, status_of, start=start)
        claim = Claim(name_of(number), number, max_tries)
        claim.write(store)
        self._owned = Job(self.client, self.kind, claim.name)
        return self._owned, self._submission(request, settings, number=number)

    def _submission(
        self, request: dict[str, Any], settings: WorkflowSettings, *, number: int
    ) -> dict[str, Any]:
        self._refuse_over_budget(settings)
        return {**request, "Tags": [*request["Tags"], {"Key": "updraft:job-number", "Value": str(number)}]}

    def _end(self, job: Job, reason: str) -> None:
        """Stop a job that a new one succeeds, and wait: two at a time are paid twice and may exceed the quota."""
        job.stop(by="airflow", reason=reason)
        job.wait_until_ended()

    def _stop(self, reason: str) -> None:
        job, self._owned = self._owned, None
        if job is not None and job.stop(by="airflow", reason=reason):
            self.log.info("job %s is told to stop: %s", job.name, reason)

    def _refuse_over_budget(self, settings: WorkflowSettings) -> None:
        prefix = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}"
        spent, unpriced = spent_this_month(
            self.client, prefix=prefix, prices=settings.usd_per_hour, now=datetime.now(UTC)
        )
        if unpriced:
            self.log.warning("not in the budget, since they have no price: %s", ", ".join(unpriced))
        if spent >= settings.monthly_budget_usd:
            raise AirflowFailException(
                f"no job is started: SageMaker jobs of {prefix} have cost ${spent:.2f} this month, and "
                f"workflows.monthly_budget_usd is {settings.monthly_budget_usd}; raise it and deploy, "
                "or wait for the next month. ./updraft jobs lists what was paid for"
            )

    def _watched(
        self,
        job: Job,
        request: dict[str, Any],
        settings: WorkflowSettings,
        *,
        started_at: float,
        longest_seconds: int,
    ) -> Watched:
        limits = [started_at + self.execution_timeout.total_seconds()] if self.execution_timeout else []
        if self.kind == "transform":
            limits.append(started_at + longest_seconds)
        instance_type, _ = cluster(self.kind, request)
        return Watched(
            kind=self.kind,
            name=job.name,
            poll_seconds=settings.poll_seconds,
            deadline=min(limits) if limits else None,
            usd_per_hour=settings.usd_per_hour.get(instance_type),
        )

    def _take_end(self, job: Job, status: str) -> dict[str, Any]:
        description = job.describe()
        self._note_end(job, description)
        if status != "Completed" or description is None:
            reason = (description or {}).get("FailureReason", "no reason given")
            raise AirflowException(f"{self.kind} job {job.name} ended {status}: {reason}")
        return {"name": job.name, **results(self.kind, description, self.client)}

    def _note_end(self, job: Job, description: dict[str, Any] | None) -> None:
        """What lineage knows of a job that has ended; a deferred task is in another process than at its start."""
        if description is None:
            return
        sources, destinations = places(self.kind, description)
        note(
            tags={
                "sagemaker_job_name": job.name,
                "sagemaker_job_kind": self.kind,
                "sagemaker_job_arn": description.get(KINDS[self.kind].arn_key, ""),
            },
            metrics={"billable_seconds": billable_seconds(self.kind, description, datetime.now(UTC))},
            sources=sources,
            destinations=destinations if description[KINDS[self.kind].status_key] == "Completed" else (),
            instance=self._instance,
        )

    def _state_now(self) -> str | None:
        """This task's state in Airflow's database; `removed` when it was deleted, None when it can't be read in time.

        Read in a thread of its own: the signal may have come while this one holds the line to the supervisor.
        """
        instance, found = self._instance, []

        def read() -> None:
            state = task_state(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
            found.append(state or "removed")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(STATE_SECONDS)
        return found[0] if found else None


def results(kind: str, job: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """What a completed job made, and how long it was billed for."""
    billable = billable_seconds(kind, job, datetime.now(UTC))
    if kind == "training":
        return {"model_uri": job["ModelArtifacts"]["S3ModelArtifacts"], "billable_seconds": billable}
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
        return {"output_uri": job["TransformOutput"]["S3OutputPath"], "billable_seconds": billable}
    outputs = job.get("ProcessingOutputConfig", {}).get("Outputs", [])
    first = outputs[0]["S3Output"]["S3Uri"] if outputs else None
    return {"output_uri": first, "billable_seconds": billable}
