"""Limits, results and the progress of a SageMaker job; run by unittest in Airflow's own environment."""

from __future__ import annotations

import asyncio
import json
import time
import unittest
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)
from botocore.exceptions import ClientError

from runtime.sagemaker import operator, progress, requests
from runtime.sagemaker.trigger import SageMakerJobTrigger
from tests.runtime.with_airflow.fake_sagemaker import (
    BROKEN,
    CREATED,
    SETTINGS,
    THROTTLED,
    JobsCase,
    request,
)


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

    def test_tuning_without_an_end_is_refused(self) -> None:
        tuning = self.tuning({"MaxParallelTrainingJobs": 2})
        with self.assertRaisesRegex(ValueError, "neither MaxNumberOfTrainingJobs nor MaxRuntimeInSeconds"):
            requests.check_limit("tuning", tuning, SETTINGS)

    def test_tuning_may_take_as_long_as_its_limits_say(self) -> None:
        for limits, seconds in (
            ({"MaxNumberOfTrainingJobs": 3}, 1800),
            ({"MaxRuntimeInSeconds": 36_000}, 36_600),
            ({"MaxNumberOfTrainingJobs": 3, "MaxRuntimeInSeconds": 36_000}, 1800),
            ({"MaxNumberOfTrainingJobs": 500, "MaxRuntimeInSeconds": 36_000}, 36_600),
        ):
            with self.subTest(limits=limits):
                tuning = self.tuning({"MaxParallelTrainingJobs": 2, **limits})
                requests.check_limit("tuning", tuning, SETTINGS)
                self.assertEqual(requests.longest_seconds("tuning", tuning, SETTINGS), seconds)

    def tuning(self, limits: dict[str, int]) -> dict[str, Any]:
        return {
            "TrainingJobDefinition": request(SETTINGS),
            "HyperParameterTuningJobConfig": {"ResourceLimits": limits},
        }

    def test_wait_for_an_instance_is_not_taken_from_the_jobs_time(self) -> None:
        deferred = self.defer()
        self.assertGreaterEqual(deferred.timeout, timedelta(seconds=600, days=1))

    def test_transform_that_is_taken_over_has_the_time_that_is_left(self) -> None:
        made = datetime.now(UTC) - timedelta(seconds=1000)
        for found, left in ((None, 3600), ({"CreationTime": made}, 2600)):
            with self.subTest(found=found):
                job: Any = SimpleNamespace(name="n", describe=lambda found=found: found)
                asked = {"TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1}}
                task = self.operator(kind="transform")
                watched = task._watched(job, asked, SETTINGS, deadline=None, longest_seconds=3600)
                self.assertAlmostEqual(watched.deadline or 0, time.time() + left, delta=5)

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
            **self.sagemaker.jobs[name], "TrainingJobName": "updraft-test-old", "BillableTimeInSeconds": 10_101,
            "TrainingStartTime": datetime.now(UTC),
        }  # fmt: skip
        self.assertEqual(self.run_try(try_number=2).trigger.watched.name, name)
        self.sagemaker.end(name, "Failed", BillableTimeInSeconds=0)
        with self.assertRaisesRegex(
            AirflowFailException, r"cost \$10.10 this month.*monthly_budget_usd is 10"
        ):
            self.operator().execute(self.context(try_number=3))
        self.assertEqual(self.active, ["updraft-test-old"])

    def test_ended_job_is_described_once_for_the_budget(self) -> None:
        name = self.run_try().trigger.watched.name
        now = datetime.now(UTC)
        self.sagemaker.end(name, "Failed", CreationTime=now, TrainingStartTime=now, TrainingEndTime=now)
        self.run_try(try_number=2)
        [second] = self.active
        del self.sagemaker.jobs[second]
        [line] = json.loads(self.s3.objects[f"spend/{now:%Y-%m}.json"])
        self.assertEqual((line["name"], line["billable_seconds"]), (name, 100))
        described: list[str] = []
        describe = self.sagemaker.describe_training_job

        def counted(TrainingJobName: str) -> dict[str, Any]:
            described.append(TrainingJobName)
            return describe(TrainingJobName)

        with mock.patch.object(self.sagemaker, "describe_training_job", counted):
            self.operator()._refuse_over_budget(SETTINGS)
        self.assertNotIn(name, described)

    def test_budget_is_held_also_when_nothing_can_be_remembered(self) -> None:
        self.s3.failure = ClientError({"Error": {"Code": "SlowDown", "Message": ""}}, "GetObject")
        self.run_try()
        [name] = self.active
        self.sagemaker.end(name, "Failed", BillableTimeInSeconds=10_101, TrainingEndTime=datetime.now(UTC),
                           TrainingStartTime=datetime.now(UTC), CreationTime=datetime.now(UTC))  # fmt: skip
        with self.assertRaisesRegex(AirflowFailException, r"cost \$10.10 this month"):
            self.operator().execute(self.context(try_number=2))


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
