"""The SageMaker API (JSON 1.1): requests are held against botocore's model, answers are cut to its output shapes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import botocore.session
from botocore.model import ListShape, Shape, StructureShape

from local.account.json_api import ApiError, answer
from local.account.resources.shapes import InvalidPropertiesError, to_api
from local.sagemaker import checks, listing
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.notebooks import Notebooks
from local.sagemaker.store import Record, Store
from local.sagemaker.tuning import summary
from local.sagemaker.warm_pools import WarmPools

# kind: (name key, ARN key, ARN's resource type, status key)
JOBS = {
    "TrainingJob": ("TrainingJobName", "TrainingJobArn", "training-job", "TrainingJobStatus"),
    "ProcessingJob": ("ProcessingJobName", "ProcessingJobArn", "processing-job", "ProcessingJobStatus"),
    "TransformJob": ("TransformJobName", "TransformJobArn", "transform-job", "TransformJobStatus"),
    "HyperParameterTuningJob": (
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobArn",
        "hyper-parameter-tuning-job",
        "HyperParameterTuningJobStatus",
    ),
}
RUNNING = ("InProgress", "Stopping")
_VALUE = "FinalHyperParameterTuningJobObjectiveMetric"
READ_ONLY = ("Describe", "List")


class SageMakerError(ApiError):
    """An error of this service."""


class SageMakerService:
    """Operations that read and change the store; the host does what the store says."""

    def __init__(self, store: Store, *, account_id: str, region: str) -> None:
        self._store = store
        self._arn = f"arn:aws:sagemaker:{region}:{account_id}"
        self._model = botocore.session.get_session().get_service_model("sagemaker")
        self._operations: dict[str, Callable[[Record], Record]] = {
            "CreateModel": self.create_model,
            "DescribeModel": lambda request: self._existing("Model", request["ModelName"]),
            "DeleteModel": lambda request: self._delete("Model", request["ModelName"]),
            "ListModels": lambda request: self._list("Model", "Models", request),
            "CreateModelPackageGroup": self.create_model_package_group,
            "DescribeModelPackageGroup": lambda request: self._existing(
                "ModelPackageGroup", request["ModelPackageGroupName"].rpartition("/")[2]
            ),
            "DeleteModelPackageGroup": self.delete_model_package_group,
            "CreateModelPackage": self.create_model_package,
            "DescribeModelPackage": lambda request: self._existing(
                "ModelPackage", request["ModelPackageName"]
            ),
            "UpdateModelPackage": self.update_model_package,
            "DeleteModelPackage": lambda request: self._delete("ModelPackage", request["ModelPackageName"]),
            "ListModelPackages": self.list_model_packages,
            "ListTrainingJobsForHyperParameterTuningJob": self.list_trials,
            "AddTags": self.add_tags,
            "ListTags": lambda request: {"Tags": self._store.tags.get(request["ResourceArn"], [])},
        }
        for kind in JOBS:
            self._operations |= self._job_operations(kind)
        self.notebooks = Notebooks(store, arn=self._arn)
        self._operations |= self.notebooks.operations
        self.warm_pools = WarmPools(store)
        self._operations["UpdateTrainingJob"] = self.warm_pools.update
        self._operations |= Endpoints(store, arn=self._arn).operations

    def _job_operations(self, kind: str) -> dict[str, Callable[[Record], Record]]:
        name_key = JOBS[kind][0]
        return {
            f"Create{kind}": lambda request: self.create_job(kind, request),
            f"Describe{kind}": lambda request: self._existing(kind, request[name_key]),
            f"Stop{kind}": lambda request: self.stop_job(kind, request[name_key]),
            f"List{kind}s": lambda request: self._list(kind, f"{kind}Summaries", request),
        }

    async def handle(
        self, _method: str, _path: str, headers: dict[str, str], body: bytes, _query: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        return answer(self.call, headers, body)

    def call(self, operation: str, request: Record) -> Record:
        """Run one operation; raises SageMakerError as AWS would answer."""
        if operation not in self._operations:
            raise SageMakerError(
                "UnknownOperationException", f"{operation} is not available in the local account"
            )
        shapes = self._model.operation_model(operation)
        try:
            checked = to_api("sagemaker", operation, request)
        except InvalidPropertiesError as error:
            raise SageMakerError("ValidationException", str(error)) from error
        mistakes = list(checks.constraint_mistakes(shapes.input_shape, checked))
        if mistakes:
            raise SageMakerError(
                "ValidationException", f"{len(mistakes)} validation errors detected: {'; '.join(mistakes)}"
            )
        with self._store.lock:
            found = self._operations[operation](checked)
            if not operation.startswith(READ_ONLY):
                # What was answered must outlive the account.
                self._store.changed()
                self._store.save()
            cut = _cut(shapes.output_shape, found) if shapes.output_shape else {}
            return json.loads(json.dumps(cut))  # type: ignore[no-any-return]

    # Jobs

    def create_job(self, kind: str, request: Record, *, more: Record | None = None) -> Record:
        """Record a job as InProgress, for the host to run."""
        name_key, arn_key, resource, status_key = JOBS[kind]
        name = request[name_key]
        if name in self._store.of(kind):
            raise SageMakerError(
                "ResourceInUse",
                f"Job name must be unique within an AWS account and region, and a {kind} with this name already exists ({self._arn}:{resource}/{name})",
            )
        if kind == "TransformJob":
            self._existing("Model", request["ModelName"])
        _refuse(checks.mistakes(kind, request))
        arn = f"{self._arn}:{resource}/{name}"
        self._store.tags[arn] = request.pop("Tags", [])
        now = time.time()
        record = request | {
            arn_key: arn,
            status_key: "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        if kind == "TrainingJob":
            record |= {"SecondaryStatus": "Starting", "SecondaryStatusTransitions": []}
        if kind == "HyperParameterTuningJob":
            record |= {
                "TrainingJobStatusCounters": dict.fromkeys(
                    ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0
                ),
                "ObjectiveStatusCounters": {"Succeeded": 0, "Pending": 0, "Failed": 0},
                "_trials": [],
            }
        self._store.of(kind)[name] = record | (more or {})
        return {arn_key: arn}

    def stop_job(self, kind: str, name: str) -> Record:
        """Ask the host to stop a job; a training that has ended already is refused, as AWS does."""
        status_key = JOBS[kind][3]
        job = self._existing(kind, name)
        if kind == "TrainingJob" and job[status_key] not in RUNNING:
            raise SageMakerError(
                "ValidationException",
                f"The request was rejected because the training job is in status {job[status_key]}.",
            )
        if job[status_key] == "InProgress":
            job |= {status_key: "Stopping", "LastModifiedTime": time.time()}
            if kind == "TrainingJob":
                job["SecondaryStatus"] = "Stopping"
        return {}

    def list_trials(self, request: Record) -> Record:
        """The trainings of a tuning job, each with its objective."""
        tuning = self._existing("HyperParameterTuningJob", request.pop("HyperParameterTuningJobName"))
        wanted = tuning["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        trials = [summary(self._store.of("TrainingJob")[name], wanted) for name in tuning["_trials"]]
        if request.get("SortBy") == "FinalObjectiveMetricValue":
            # Those without a value are left out of this order, as the API documents.
            request.pop("SortBy")
            trials = sorted(
                (trial for trial in trials if _VALUE in trial),
                key=lambda trial: trial[_VALUE]["Value"],
                reverse=request.pop("SortOrder", "Ascending") == "Descending",
            )
            found, token = listing.slice_of(trials, request)
        else:
            found, token = self._page("TrainingJob", trials, request)
        return {"TrainingJobSummaries": found, "NextToken": token}

    # Models

    def create_model(self, request: Record) -> Record:
        """Record a model."""
        name = request["ModelName"]
        arn = f"{self._arn}:model/{name}"
        _refuse(checks.mistakes("Model", request))
        if name in self._store.of("Model"):
            raise SageMakerError("ValidationException", f'Cannot create already existing model "{arn}".')
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of("Model")[name] = request | {"ModelArn": arn, "CreationTime": time.time()}
        return {"ModelArn": arn}

    def create_model_package_group(self, request: Record) -> Record:
        """Record a group of model versions."""
        name = request["ModelPackageGroupName"]
        if name in self._store.of("ModelPackageGroup"):
            raise SageMakerError("ValidationException", f"Model Package Group already exists: {name}")
        arn = f"{self._arn}:model-package-group/{name}"
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of("ModelPackageGroup")[name] = request | {
            "ModelPackageGroupArn": arn,
            "CreationTime": time.time(),
            "CreatedBy": {},
            "ModelPackageGroupStatus": "Completed",
        }
        return {"ModelPackageGroupArn": arn}

    def delete_model_package_group(self, request: Record) -> Record:
        """Remove an empty group."""
        name = request["ModelPackageGroupName"].rpartition("/")[2]
        if any(item["ModelPackageGroupName"] == name for item in self._store.of("ModelPackage").values()):
            raise SageMakerError(
                "ConflictException",
                f"Model Package Group cannot be deleted as it still contains Model Packages: {name}",
            )
        return self._delete("ModelPackageGroup", name)

    def create_model_package(self, request: Record) -> Record:
        """Record the next version of a group; the same client token makes no second one."""
        group = self._existing("ModelPackageGroup", request["ModelPackageGroupName"].rpartition("/")[2])
        name = group["ModelPackageGroupName"]
        versions = [
            item for item in self._store.of("ModelPackage").values() if item["ModelPackageGroupName"] == name
        ]
        token = request.pop("ClientToken", None)
        for version in versions:
            if token and version["_token"] == token:
                return {"ModelPackageArn": version["ModelPackageArn"]}
        number = max((item["ModelPackageVersion"] for item in versions), default=0) + 1
        arn = f"{self._arn}:model-package/{name}/{number}"
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of("ModelPackage")[arn] = request | {
            "ModelPackageName": arn,
            "ModelPackageGroupName": name,
            "ModelPackageVersion": number,
            "ModelPackageArn": arn,
            "CreationTime": time.time(),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": []},
            "ModelApprovalStatus": request.get("ModelApprovalStatus", "PendingManualApproval"),
            "_token": token,
        }
        return {"ModelPackageArn": arn}

    def update_model_package(self, request: Record) -> Record:
        """Change a version's approval or metadata."""
        version = self._existing("ModelPackage", request.pop("ModelPackageArn"))
        version |= request | {"LastModifiedTime": time.time()}
        return {"ModelPackageArn": version["ModelPackageArn"]}

    def list_model_packages(self, request: Record) -> Record:
        """Versions, newest first, of one group or of all."""
        group = request.get("ModelPackageGroupName", "").rpartition("/")[2]
        found = [
            item
            for item in self._store.of("ModelPackage").values()
            if group in ("", item["ModelPackageGroupName"])
        ]
        return {"ModelPackageSummaryList": found[::-1]}

    def add_tags(self, request: Record) -> Record:
        """Add or overwrite tags."""
        merged = {tag["Key"]: tag for tag in self._store.tags.get(request["ResourceArn"], [])}
        merged |= {tag["Key"]: tag for tag in request["Tags"]}
        self._store.tags[request["ResourceArn"]] = list(merged.values())
        return {"Tags": list(merged.values())}

    # Look-ups

    def _existing(self, kind: str, name: str) -> Record:
        found = self._store.of(kind).get(name)
        if found is None:
            raise SageMakerError(
                "ValidationException", f"Could not find {kind} {name}: requested resource not found."
            )
        return found

    def _delete(self, kind: str, name: str) -> Record:
        self._existing(kind, name)
        del self._store.of(kind)[name]
        return {}

    def _list(self, kind: str, answer_key: str, request: Record) -> Record:
        found, token = self._page(kind, self._store.of(kind).values(), request)
        return {answer_key: found, "NextToken": token}

    def _page(self, kind: str, items: Iterable[Record], request: Record) -> tuple[list[Record], str | None]:
        name_key, _, _, status_key = JOBS.get(kind, (f"{kind}Name", "", "", None))
        try:
            return listing.page(kind, items, request, name_key=name_key, status_key=status_key)
        except listing.ListingError as error:
            raise SageMakerError("ValidationException", str(error)) from error


def _refuse(mistakes: Iterable[str]) -> None:
    found = list(mistakes)
    if found:
        raise SageMakerError("ValidationException", "; ".join(found))


def new_suffix() -> str:
    """A short unique suffix, as SageMaker gives to the trainings of a tuning job."""
    return uuid.uuid4().hex[:8]


def _cut(shape: Shape, value: Any) -> Any:
    """Only what the output shape has."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {
            name: _cut(shape.members[name], item)
            for name, item in value.items()
            if name in shape.members and item is not None
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_cut(shape.member, item) for item in value]
    return value
