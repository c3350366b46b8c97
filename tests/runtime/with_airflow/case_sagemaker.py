"""Who adopts, stops and renews a SageMaker job; run by unittest in Airflow's own environment."""

from __future__ import annotations

import asyncio
import os
import time
import unittest
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
    TaskDeferred,
)
from botocore.exceptions import ClientError, ReadTimeoutError

from runtime.sagemaker import jobs, operator, progress, trigger
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.trigger import SageMakerJobTrigger
from runtime.settings import WorkflowSettings

SETTINGS = WorkflowSettings(
    region="us-east-1",
    role_arn="arn:aws:iam::123456789012:role/jobs",
    training_image="image",
    data_bucket="data",
    model_package_group="models",
    subnet_ids=[],
    security_group_ids=[],
    instance_types={"training": "ml.g5.xlarge"},
    max_runtime_seconds=3600,
    poll_seconds=0,
    monthly_budget_usd=10,
    usd_per_hour={"ml.g5.xlarge": 3.6},
)
CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)
THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "Create")
BROKEN = ClientError({"Error": {"Code": "InternalFailure", "Message": "500"}}, "Create")
LOST = ReadTimeoutError(endpoint_url="https://api.sagemaker.us-east-1.amazonaws.com")


def request(_settings: WorkflowSettings, **changes: Any) -> dict[str, Any]:
    return {
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    } | changes


class FakeSageMaker:
    """Training jobs as SageMaker keeps them: names are used once, a stop takes a moment."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.stops: list[str] = []
        self.tags: dict[str, dict[str, str]] = {}
        self.create_error: Exception | None = None
        self.error_comes_after_acceptance = False

    def create_training_job(self, **asked: Any) -> None:
        error, self.create_error = self.create_error, None
        name = asked["TrainingJobName"]
        if error is not None and not self.error_comes_after_acceptance:
            raise error
        if name in self.jobs:
            raise ClientError({"Error": {"Code": "ResourceInUse", "Message": "exists"}}, "CreateTrainingJob")
        self.jobs[name] = {
            "TrainingJobName": name,
            "TrainingJobArn": f"arn:{name}",
            "TrainingJobStatus": "InProgress",
            "CreationTime": CREATED,
            "TrainingStartTime": CREATED,
            **asked,
        }
        self.tags[f"arn:{name}"] = {tag["Key"]: tag["Value"] for tag in asked["Tags"]}
        if error is not None:
            raise error

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:
        if TrainingJobName not in self.jobs:
            message = "Requested resource not found."
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "Describe")
        job = self.jobs[TrainingJobName]
        found = dict(job)
        if job["TrainingJobStatus"] == "Stopping":
            self.end(TrainingJobName, "Stopped")
        return found

    def stop_training_job(self, TrainingJobName: str) -> None:
        if self.describe_training_job(TrainingJobName)["TrainingJobStatus"] != "InProgress":
            message = "The request was rejected because the training job is in status Completed."
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "Stop")
        self.stops.append(TrainingJobName)
        self.jobs[TrainingJobName]["TrainingJobStatus"] = "Stopping"

    def add_tags(self, ResourceArn: str, Tags: list[dict[str, str]]) -> None:
        self.tags[ResourceArn] |= {tag["Key"]: tag["Value"] for tag in Tags}

    def get_paginator(self, operation: str) -> Any:
        found = list(self.jobs.values()) if operation == "list_training_jobs" else []
        key = {"list_training_jobs": "TrainingJobSummaries", "list_processing_jobs": "ProcessingJobSummaries"}
        page = {key.get(operation, "TransformJobSummaries"): found}
        return SimpleNamespace(paginate=lambda **_: [page])

    def end(self, name: str, status: str, **more: Any) -> None:
        self.jobs[name] |= {
            "TrainingJobStatus": status,
            "TrainingEndTime": CREATED + timedelta(seconds=100),
            "BillableTimeInSeconds": 100,
            "ModelArtifacts": {"S3ModelArtifacts": "s3://data/model.tar.gz"},
        } | more

    def __getattr__(self, name: str) -> Any:
        if name in ("describe_processing_job", "describe_transform_job"):
            return None
        raise AttributeError(name)


class Store(dict[str, Any]):
    """The task state store: it outlives the tries and the clears of a task instance."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class JobsCase(unittest.TestCase):
    """One task instance, its store, and a SageMaker."""

    def setUp(self) -> None:
        environment = {"UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "test"}
        self.sagemaker = FakeSageMaker()
        self.store = Store()
        self.state: str | None = "running"
        for patch in (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(operator, "workflow_settings", lambda: SETTINGS),
            mock.patch.object(operator, "task_state", lambda *_: self.state),
            mock.patch.object(trigger, "task_state", lambda *_: self.state),
            mock.patch.object(trigger, "SageMakerHook", self.hook),
            mock.patch.object(operator, "SageMakerHook", self.hook),
            mock.patch.object(jobs, "STOP_POLL_SECONDS", 0),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def hook(self, **_: Any) -> Any:
        return SimpleNamespace(get_conn=lambda: self.sagemaker)

    def context(self, *, try_number: int = 1, max_tries: int = 1) -> dict[str, Any]:
        instance = SimpleNamespace(
            dag_id="d", run_id="r", task_id="train", map_index=-1, try_number=try_number, max_tries=max_tries
        )
        return {
            "ti": instance,
            "task_state_store": self.store,
            "dag_run": SimpleNamespace(bundle_version="v"),
        }

    def operator(self, **changes: Any) -> SageMakerJobOperator:
        values: dict[str, Any] = {"task_id": "train", "kind": "training", "request": request, "op_kwargs": {}}
        return SageMakerJobOperator(**(values | changes))

    def run_try(self, **context: Any) -> TaskDeferred:
        """One try, until its trigger has submitted what there is to submit."""
        deferred = self.defer(**context)
        asyncio.run(deferred.trigger.submit())
        return deferred

    def defer(self, **context: Any) -> TaskDeferred:
        """One try, until it defers."""
        with self.assertRaises(TaskDeferred) as raised:
            self.operator().execute(self.context(**context))
        return raised.exception

    @property
    def active(self) -> list[str]:
        return [name for name, job in self.sagemaker.jobs.items() if job["TrainingJobStatus"] == "InProgress"]


class TakingOver(JobsCase):
    def test_first_try_starts_one_tagged_job_and_defers(self) -> None:
        deferred = self.run_try()
        [name] = self.active
        self.assertEqual(deferred.trigger.watched.name, name)
        self.assertEqual(self.sagemaker.tags[f"arn:{name}"]["updraft:task"], "train")
        self.assertEqual(self.sagemaker.tags[f"arn:{name}"]["updraft:job-number"], "1")

    def test_retry_goes_on_with_the_job_that_runs(self) -> None:
        first = self.run_try().trigger.watched.name
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, first)
        self.assertEqual(list(self.sagemaker.jobs), [first])

    def test_retry_takes_the_result_of_a_job_that_completed_meanwhile(self) -> None:
        name = self.run_try().trigger.watched.name
        self.sagemaker.end(name, "Completed")
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, name)

    def test_retry_after_a_failed_job_starts_another_one(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Failed")
        second = self.run_try(try_number=2).trigger.watched.name
        self.assertNotEqual(first, second)
        self.assertEqual(self.active, [second])

    def test_task_that_ends_in_the_moment_of_its_deferral_has_no_job(self) -> None:
        self.defer()
        self.assertEqual(self.sagemaker.jobs, {})

    def test_crash_between_claim_and_submission_leaves_one_job(self) -> None:
        first = self.defer()
        name = self.run_try(try_number=2).trigger.watched.name
        asyncio.run(first.trigger.submit())
        self.assertEqual(list(self.sagemaker.jobs), [name])

    def test_moved_trigger_submits_no_second_job(self) -> None:
        deferred = self.run_try()
        _, values = deferred.trigger.serialize()
        asyncio.run(SageMakerJobTrigger(**values).submit())
        self.assertEqual(len(self.sagemaker.jobs), 1)

    def test_crash_of_a_task_that_holds_its_slot_right_after_submission_leaves_one_job(self) -> None:
        with (
            mock.patch.object(operator, "follow_with_hooks", side_effect=SystemExit),
            self.assertRaises(SystemExit),
        ):
            self.operator(deferrable=False).execute(self.context())
        name = self.run_try(try_number=2).trigger.watched.name
        self.assertEqual(list(self.sagemaker.jobs), [name])

    def test_resumption_without_an_event_starts_over(self) -> None:
        name = self.run_try().trigger.watched.name
        with self.assertRaises(TaskDeferred) as raised:
            self.operator().resume(self.context())
        self.assertEqual(raised.exception.trigger.watched.name, name)

    def test_error_after_acceptance_is_no_error(self) -> None:
        for error in (THROTTLED, BROKEN, LOST):
            with self.subTest(error=error):
                self.setUp()
                self.sagemaker.create_error = error
                self.sagemaker.error_comes_after_acceptance = True
                self.run_try()
                self.assertEqual(len(self.sagemaker.jobs), 1)

    def test_refused_submission_fails_the_try_and_the_next_one_submits_the_same_name(self) -> None:
        for error in (THROTTLED, BROKEN, LOST):
            with self.subTest(error=error):
                self.setUp()
                self.sagemaker.create_error = error
                with self.assertRaisesRegex(
                    jobs.SubmissionError, "did not take training job updraft-test-train-"
                ):
                    self.run_try()
                self.run_try(try_number=2)
                self.assertEqual(len(self.sagemaker.jobs), 1)


class Renewing(JobsCase):
    def test_clear_of_a_finished_task_is_a_new_job(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Completed")
        second = self.run_try(try_number=2, max_tries=2).trigger.watched.name
        self.assertNotEqual(first, second)
        self.assertEqual(self.sagemaker.stops, [])

    def test_cleared_task_that_restarts_first_stops_the_old_job_and_never_adopts_it(self) -> None:
        first = self.run_try().trigger.watched.name
        second = self.run_try(try_number=2, max_tries=2).trigger.watched.name
        self.assertEqual(self.active, [second])
        self.assertEqual(self.sagemaker.stops, [first])
        self.assertEqual(self.sagemaker.tags[f"arn:{first}"]["updraft:stop-reason"], "the task was cleared")

    def test_new_job_waits_until_the_stopped_one_has_ended(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.stop_training_job(first)
        self.run_try(try_number=2)
        self.assertEqual(self.sagemaker.jobs[first]["TrainingJobStatus"], "Stopped")

    def test_run_that_was_deleted_and_made_again_gets_a_job_of_its_own(self) -> None:
        first = self.run_try().trigger.watched.name
        self.sagemaker.end(first, "Completed")
        self.store.clear()
        second = self.run_try().trigger.watched.name
        self.assertNotEqual(first, second)

    def test_job_that_a_deleted_run_left_behind_is_stopped(self) -> None:
        first = self.run_try().trigger.watched.name
        self.store.clear()
        second = self.run_try().trigger.watched.name
        self.assertEqual(self.active, [second])
        self.assertEqual(self.sagemaker.stops, [first])


class Stopping(JobsCase):
    def trigger(self, deferred: TaskDeferred) -> SageMakerJobTrigger:
        made = deferred.trigger
        made._task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="train", map_index=-1)
        return made

    def test_killed_trigger_stops_the_job_of_a_task_that_no_longer_waits(self) -> None:
        for state in ("failed", "success", "skipped", "queued", "running", None):
            with self.subTest(state=state):
                self.setUp()
                deferred = self.run_try()
                self.state = state
                asyncio.run(self.trigger(deferred).on_kill())
                self.assertEqual(self.sagemaker.stops, [deferred.trigger.watched.name])

    def test_kill_waits_for_a_submission_that_is_on_its_way(self) -> None:
        waiting = self.trigger(self.defer())
        self.state = "failed"
        create = self.sagemaker.create_training_job

        def slowly(**asked: Any) -> None:
            time.sleep(0.2)
            create(**asked)

        async def kill_at_once() -> None:
            submission = asyncio.create_task(waiting.submit())
            await asyncio.sleep(0)
            submission.cancel()
            await waiting.on_kill()

        with mock.patch.object(self.sagemaker, "create_training_job", slowly):
            asyncio.run(kill_at_once())
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])

    def test_moved_trigger_stops_nothing(self) -> None:
        deferred = self.run_try()
        self.state = "deferred"
        asyncio.run(self.trigger(deferred).on_kill())
        self.assertEqual(self.sagemaker.stops, [])

    def test_unknown_state_stops_nothing(self) -> None:
        deferred = self.run_try()
        with mock.patch.object(trigger, "task_state", side_effect=RuntimeError("no database")):
            asyncio.run(self.trigger(deferred).on_kill())
        self.assertEqual(self.sagemaker.stops, [])

    def sync_kill(self, state: str | None) -> list[str]:
        """A task that holds its slot gets SIGTERM while it follows its job."""
        task = self.operator(deferrable=False)

        async def killed(*_: Any) -> str:
            self.state = state
            task.on_kill()
            return "Stopped"

        with (
            mock.patch.object(operator, "follow_with_hooks", killed),
            self.assertRaisesRegex(AirflowException, "ended Stopped"),
        ):
            task.execute(self.context())
        return self.sagemaker.stops

    def test_kill_by_a_user_stops_and_a_leaving_worker_does_not(self) -> None:
        for state, stopped in (
            ("failed", 1), ("success", 1), ("restarting", 1), (None, 1), ("running", 0), ("queued", 0),
        ):  # fmt: skip
            with self.subTest(state=state):
                self.setUp()
                self.assertEqual(len(self.sync_kill(state)), stopped)

    def test_execution_timeout_stops_and_the_retry_starts_another_job(self) -> None:
        with (
            mock.patch.object(operator, "follow_with_hooks", side_effect=AirflowTaskTimeout),
            self.assertRaises(AirflowTaskTimeout),
        ):
            self.operator(deferrable=False).execute(self.context())
        self.assertEqual(len(self.sagemaker.stops), 1)
        self.run_try(try_number=2)
        self.assertEqual(len(self.sagemaker.jobs), 2)

    def test_deferred_execution_timeout_stops_in_the_trigger(self) -> None:
        deferred = self.run_try()
        waiting = self.trigger(deferred)

        async def first_event() -> Any:
            with mock.patch.object(trigger, "follow_with_hooks", side_effect=progress.DeadlineError):
                return await anext(waiting.run())

        event = asyncio.run(first_event())
        self.assertEqual(event.payload["status"], "TimedOut")
        self.assertEqual(self.sagemaker.stops, [waiting.watched.name])
        with self.assertRaises(AirflowTaskTimeout):
            self.operator().resume(self.context(), event.payload)

    def test_deadline_is_the_execution_timeout(self) -> None:
        before = time.time()
        with self.assertRaises(TaskDeferred) as raised:
            self.operator(execution_timeout=timedelta(seconds=50)).execute(self.context())
        self.assertAlmostEqual(raised.exception.trigger.watched.deadline, before + 50, delta=5)

    def test_deferral_that_took_too_long_stops(self) -> None:
        name = self.run_try().trigger.watched.name
        with self.assertRaises(TaskDeferralTimeout):
            self.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, self.context())
        self.assertEqual(self.sagemaker.stops, [name])

    def test_failed_trigger_leaves_the_job_to_the_retry(self) -> None:
        self.run_try()
        with self.assertRaisesRegex(AirflowException, "Trigger failure"):
            self.operator().resume_execution("__fail__", {"error": "Trigger failure"}, self.context())
        self.assertEqual(self.sagemaker.stops, [])


class Ending(JobsCase):
    def test_completed_job_hands_over_what_it_made(self) -> None:
        name = self.run_try().trigger.watched.name
        self.sagemaker.end(name, "Completed")
        made = self.operator().resume(self.context(), {"name": name, "status": "Completed"})
        self.assertEqual(made, {"name": name, "model_uri": "s3://data/model.tar.gz", "billable_seconds": 100})

    def test_processing_job_without_an_output_hands_over_none(self) -> None:
        job = {"ProcessingStartTime": CREATED, "ProcessingEndTime": CREATED + timedelta(seconds=7)}
        made = operator.results("processing", job, self.sagemaker)
        self.assertEqual(made, {"output_uri": None, "billable_seconds": 7})

    def test_failed_job_fails_with_its_reason(self) -> None:
        name = self.run_try().trigger.watched.name
        self.sagemaker.end(name, "Failed", FailureReason="out of memory")
        with self.assertRaisesRegex(AirflowException, "out of memory"):
            self.operator().resume(self.context(), {"name": name, "status": "Failed"})

    def test_trigger_survives_its_serialization(self) -> None:
        made = self.run_try().trigger
        path, values = made.serialize()
        self.assertEqual(path, "runtime.sagemaker.trigger.SageMakerJobTrigger")
        self.assertEqual(SageMakerJobTrigger(**values).serialize(), (path, values))


class Limits(JobsCase):
    def test_job_without_a_hard_limit_is_refused(self) -> None:
        for limit in ({}, {"MaxRuntimeInSeconds": 3601}):
            with (
                self.subTest(limit=limit),
                self.assertRaisesRegex(ValueError, "hard limit of at most 3600 s"),
            ):
                self.operator(op_kwargs={"StoppingCondition": limit}).execute(self.context())
        self.assertEqual(self.sagemaker.jobs, {})

    def test_spot_wants_checkpoints_and_gets_a_longest_wait(self) -> None:
        with self.assertRaisesRegex(ValueError, "CheckpointConfig"):
            self.operator(spot=True).execute(self.context())
        checkpoints = {"CheckpointConfig": {"S3Uri": "s3://data/c"}}
        with self.assertRaises(TaskDeferred) as raised:
            self.operator(spot=True, op_kwargs=checkpoints).execute(self.context())
        job = raised.exception.trigger.request
        self.assertIs(job["EnableManagedSpotTraining"], True)
        self.assertEqual(job["StoppingCondition"], {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200})

    def test_over_budget_no_job_starts_and_a_running_one_is_still_taken_over(self) -> None:
        name = self.run_try().trigger.watched.name
        self.sagemaker.jobs["updraft-test-old"] = {
            **self.sagemaker.jobs[name], "TrainingJobName": "updraft-test-old", "BillableTimeInSeconds": 10_001,
        }  # fmt: skip
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, name)
        self.sagemaker.end(name, "Failed")
        with self.assertRaisesRegex(
            AirflowFailException, r"cost \$10.10 this month.*monthly_budget_usd is 10"
        ):
            self.operator().execute(self.context(try_number=3))
        self.assertEqual(self.active, ["updraft-test-old"])


class Following(JobsCase):
    """The watcher, against asynchronous clients that answer from lists."""

    def follow(self, descriptions: list[Any], lines: list[str], **watched: Any) -> tuple[str, list[str]]:
        told: list[str] = []

        async def describe(**_: Any) -> Any:
            found = descriptions.pop(0) if len(descriptions) > 1 else descriptions[0]
            if isinstance(found, Exception):
                raise found
            return found

        async def streams(**_: Any) -> Any:
            return {"logStreams": [{"logStreamName": "job/algo-1-1"}]}

        async def events(**asked: Any) -> Any:
            start = int(asked.get("nextToken", "0"))
            return {
                "events": [{"message": line} for line in lines[start:]], "nextForwardToken": str(len(lines)),
            }  # fmt: skip

        sagemaker = SimpleNamespace(describe_training_job=describe)
        logs = SimpleNamespace(describe_log_streams=streams, get_log_events=events)
        what = progress.Watched("training", "job", 0, **watched)
        return asyncio.run(progress.follow(what, sagemaker, logs, told.append)), told

    def description(self, status: str, secondary: str, **more: Any) -> dict[str, Any]:
        return {
            "TrainingJobStatus": status, "SecondaryStatus": secondary, "CreationTime": CREATED,
            "TrainingStartTime": CREATED, "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
            "AlgorithmSpecification": {"MetricDefinitions": [{"Name": "auc", "Regex": "auc=([0-9.]+)"}]},
            **more,
        }  # fmt: skip

    def test_states_lines_metrics_and_cost_are_told_once(self) -> None:
        ended = self.description(
            "Completed", "Completed", BillableTimeInSeconds=100,
            SecondaryStatusTransitions=[{"Status": "Interrupted"}],
        )  # fmt: skip
        status, told = self.follow(
            [
                self.description("InProgress", "Training"),
                self.description("InProgress", "Training"),
                ended,
            ],
            ["auc=0.5", "auc=0.7"],
            usd_per_hour=3.6,
        )
        self.assertEqual(status, "Completed")
        self.assertEqual(
            told,
            [
                "training job job: InProgress Training",
                "| auc=0.5",
                "| auc=0.7",
                "training job job: Completed Completed",
                "auc 0.7 (round 2); 100 billable seconds; $0.2000 so far; interrupted 1 times",
            ],
        )

    def test_errors_that_pass_are_borne_with_and_lasting_ones_are_raised(self) -> None:
        ended = self.description("Completed", "Completed", BillableTimeInSeconds=1)
        status, told = self.follow([THROTTLED, BROKEN, ended], [])
        self.assertEqual(status, "Completed")
        self.assertIn("unknown for now", told[0])
        with self.assertRaises(ClientError):
            self.follow([THROTTLED], [])

    def test_deadline_ends_the_wait(self) -> None:
        with self.assertRaises(progress.DeadlineError):
            self.follow([self.description("InProgress", "Training")], [], deadline=1.0)


if __name__ == "__main__":
    unittest.main()
