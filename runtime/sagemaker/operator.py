"""The task that owns a SageMaker job: training, processing, tuning or transform, deferred or holding its slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout, TaskDeferralTimeout

from runtime.lineage.notes import note
from runtime.sagemaker import requests
from runtime.sagemaker.jobs import Job
from runtime.sagemaker.kinds import KINDS, billable_seconds, cluster, lacks_capacity, places
from runtime.sagemaker.owner import SageMakerOwner
from runtime.sagemaker.ownership import Claim, decide, first_free, is_active
from runtime.sagemaker.progress import DeadlineError, Watched
from runtime.sagemaker.trigger import TIMED_OUT, SageMakerJobTrigger, follow_with_hooks
from runtime.settings import WorkflowSettings, job_name, tags, workflow_settings

# What SageMaker's own limit doesn't count: the wait for an instance, which isn't paid, the upload of the model, and the
# time until the end is seen. A job that this stops would have run late, not long.
SLACK_SECONDS = 24 * 3600


class SageMakerJobOperator(SageMakerOwner):
    """Runs a SageMaker job that ends with its task and is never paid twice.

    A retry, a lost worker, and a restart of scheduler or triggerer go on with the job that is there. A clear, a mark,
    a time-out or a deletion stops it. A clear of a finished task starts a new one.

    :param kind: `training`, `processing`, `transform` or `tuning`
    :param request: called with the environment's settings and `op_kwargs`; returns the API request without name
        and tags; `StoppingCondition.MaxRuntimeInSeconds` is required
    :param op_kwargs: templated keyword arguments of `request`
    :param spot: train on spot instances; the request needs a `CheckpointConfig`
    :param instance_fallbacks: instance types to take when the request's has no capacity, in this order, at most four;
        on demand SageMaker chooses, on spot the task submits the next one
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
        instance_fallbacks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        self.kind = kind
        self.request = request
        self.op_kwargs = op_kwargs
        self.spot = spot
        self.instance_fallbacks = instance_fallbacks
        self._owned: Job | None = None

    # The task's life

    def execute(self, context: Any) -> dict[str, Any]:
        """Take or start the job, then wait for its end."""
        timeout = self.execution_timeout
        return self._run(context, deadline=time.time() + timeout.total_seconds() if timeout else None)

    def _run(self, context: Any, *, deadline: float | None) -> dict[str, Any]:
        settings = workflow_settings()
        request = {**self.request(settings, **self.op_kwargs), "Tags": tags(context)}
        request = requests.in_vpc(self.kind, request, settings)
        requests.check_limit(self.kind, request, settings)
        fallbacks = self.instance_fallbacks
        types = requests.instance_types(self.kind, request, fallbacks) if fallbacks else []
        if self.spot:
            request = requests.with_spot(self.kind, request)
        elif types:
            request = requests.with_preferences(self.kind, request, types)
        longest = requests.longest_seconds(self.kind, request, settings)
        self._instance = context["ti"]
        try:
            job, submission = self._own_job(context, request, settings)
            note(
                tags={"sagemaker_job_name": job.name, "sagemaker_job_kind": self.kind},
                instance=self._instance,
            )
            watched = self._watched(job, request, settings, deadline=deadline, longest_seconds=longest)
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
            self._give_up("execution time-out")
            raise AirflowTaskTimeout("the SageMaker job is told to stop: the task's time is up") from error
        return self._end_or_next(context, job, status, deadline=deadline)

    def resume(self, context: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the job's end: what it made, or the reason why it failed."""
        if event is None:
            # So Airflow resumes a task that was cleared in the moment of its deferral.
            return self.execute(context)
        self._instance = context["ti"]
        self._owned = Job(self.client, self.kind, event["name"])
        if event["status"] == TIMED_OUT:
            raise AirflowTaskTimeout(f"{self.kind} job {event['name']} was told to stop: execution time-out")
        return self._end_or_next(context, self._owned, event["status"], deadline=event.get("deadline"))

    def _end_or_next(self, context: Any, job: Job, status: str, *, deadline: float | None) -> dict[str, Any]:
        """The job's end, unless there was no spot capacity for it and another instance type is left to try."""
        if self.spot and self.instance_fallbacks and status != "Completed":
            claim = Claim.read(context["task_state_store"])
            left = claim is not None and claim.instance < len(self.instance_fallbacks)
            if left and lacks_capacity(job.describe() or {}):
                return self._run(context, deadline=deadline)
        return self._take_end(job, status)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """As Airflow's, and a deferral that took too long takes its job with it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            claim = Claim.read(context["task_state_store"])
            if claim is not None:
                self._owned = Job(self.client, self.kind, claim.name)
                self._give_up("the deferral took longer than the job may")
            raise

    @property
    def owned_name(self) -> str | None:
        """The job's name."""
        return None if self._owned is None else self._owned.name

    # The job

    def _own_job(
        self, context: Any, request: dict[str, Any], settings: WorkflowSettings
    ) -> tuple[Job, dict[str, Any] | None]:
        """The job that is this task's from here on, and the request to submit unless it is there already."""
        store, max_tries = context["task_state_store"], context["ti"].max_tries
        claim = Claim.read(store)
        start, instance = 1, 0
        if claim is not None:
            job = self._owned = Job(self.client, self.kind, claim.name)
            decision = decide(claim, job.status(), max_tries=max_tries, retries=self.retries)
            self.log.info(
                "job %s of an earlier try: %s, because %s", job.name, decision.action, decision.reason
            )
            if decision.action == "take":
                return job, None
            if decision.action == "submit":
                return job, self._submission(request, settings, number=claim.number, instance=claim.instance)
            start = claim.number + 1
            if not claim.is_before_a_clear(max_tries=max_tries, retries=self.retries):
                instance = claim.instance + int(lacks_capacity(job.describe() or {}))
            self._end(job, decision.reason)

        def name_of(number: int) -> str:
            return job_name(context, kind=self.kind, number=number)

        def status_of(name: str) -> str | None:
            earlier = Job(self.client, self.kind, name)
            if is_active(status := earlier.status()):
                self._end(earlier, "its run was deleted")
            return status

        number = first_free(name_of, status_of, start=start)
        claim = Claim(
            name_of(number),
            number,
            max_tries,
            self.retries,
            instance % (1 + len(self.instance_fallbacks)),
        )
        claim.write(store)
        self._owned = Job(self.client, self.kind, claim.name)
        submission = self._submission(request, settings, number=number, instance=claim.instance)
        return self._owned, submission

    def _submission(
        self, request: dict[str, Any], settings: WorkflowSettings, *, number: int, instance: int
    ) -> dict[str, Any]:
        self._refuse_over_budget(settings)
        if self.spot and self.instance_fallbacks:
            types = requests.instance_types(self.kind, request, self.instance_fallbacks)
            request = requests.with_instance_type(self.kind, request, types[instance])
        return {**request, "Tags": [*request["Tags"], {"Key": "updraft:job-number", "Value": str(number)}]}

    def _end(self, job: Job, reason: str) -> None:
        """Stop a job that a new one succeeds, and wait: two at a time are paid twice and may exceed the quota."""
        job.stop(by="airflow", reason=reason)
        job.wait_until_ended()

    def _give_up(self, reason: str) -> None:
        job, self._owned = self._owned, None
        if job is not None and job.stop(by="airflow", reason=reason):
            self.log.info("job %s is told to stop: %s", job.name, reason)

    def _watched(
        self,
        job: Job,
        request: dict[str, Any],
        settings: WorkflowSettings,
        *,
        deadline: float | None,
        longest_seconds: int,
    ) -> Watched:
        limits = [] if deadline is None else [deadline]
        if self.kind == "transform":
            limits.append(_created_at(job) + longest_seconds)
        instance_type, _ = cluster(self.kind, request)
        # Which type a job with fallbacks gets is known later than this.
        price = None if self.instance_fallbacks else settings.usd_per_hour.get(instance_type)
        return Watched(
            kind=self.kind,
            name=job.name,
            poll_seconds=settings.poll_seconds,
            deadline=min(limits) if limits else None,
            usd_per_hour=price,
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


def _created_at(job: Job) -> float:
    """Seconds since 1970 at which a job was made, now for one that is yet to be submitted."""
    found = job.describe()
    return time.time() if found is None else float(found["CreationTime"].timestamp())


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
