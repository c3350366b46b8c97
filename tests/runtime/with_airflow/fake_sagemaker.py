"""One task instance with its state store, and a SageMaker in memory, for the cases beside this file."""

from __future__ import annotations

import asyncio
import io
import os
import unittest
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow.sdk.exceptions import (
    TaskDeferred,
)
from botocore.exceptions import ClientError, ReadTimeoutError

from runtime.sagemaker import jobs, operator, owner, trigger
from runtime.sagemaker.operator import SageMakerJobOperator
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
# What the task's DAG says: as many as `context` has in `max_tries`.
RETRIES = 1
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
        key = {
            "list_training_jobs": "TrainingJobSummaries",
            "list_processing_jobs": "ProcessingJobSummaries",
            "list_transform_jobs": "TransformJobSummaries",
            "list_endpoints": "Endpoints",
        }
        page = {key[operation]: found}
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


class FakeS3:
    """Objects by key; `failure` is raised by every call."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failure: Exception | None = None

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        assert Bucket == "data"
        if self.failure:
            raise self.failure
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        assert Bucket == "data"
        if self.failure:
            raise self.failure
        self.objects[Key] = Body


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
        self.s3 = FakeS3()
        self.state: str | None = "running"
        for patch in (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(operator, "workflow_settings", lambda: SETTINGS),
            mock.patch.object(owner, "task_state", self.task_state),
            mock.patch.object(trigger, "task_state", self.task_state),
            mock.patch.object(trigger, "SageMakerHook", self.hook),
            mock.patch.object(owner, "SageMakerHook", self.hook),
            mock.patch.object(owner, "S3Hook", lambda **_: SimpleNamespace(get_conn=lambda: self.s3)),
            mock.patch.object(jobs, "STOP_POLL_SECONDS", 0),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def task_state(self, *_: Any) -> str | None:
        return self.state

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
        values: dict[str, Any] = {
            "task_id": "train", "kind": "training", "request": request, "op_kwargs": {}, "retries": RETRIES,
        }  # fmt: skip
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
