"""The four kinds of SageMaker jobs, and how each is called in the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ENDED = frozenset({"Completed", "Failed", "Stopped"})
# SageMaker's most; its default is 10, and it throttles lists at a few requests a second for the whole account.
PAGE_SIZE = 100


@dataclass(frozen=True)
class JobKind:
    """One kind; `prefix` begins the keys of its description, `log_group` is None where the job itself logs nothing."""

    noun: str
    prefix: str
    log_group: str | None

    @property
    def name_key(self) -> str:
        return f"{self.prefix}JobName"

    @property
    def status_key(self) -> str:
        return f"{self.prefix}JobStatus"

    @property
    def arn_key(self) -> str:
        return f"{self.prefix}JobArn"

    @property
    def create(self) -> str:
        return f"create_{self.noun}"

    @property
    def describe(self) -> str:
        return f"describe_{self.noun}"

    @property
    def stop(self) -> str:
        return f"stop_{self.noun}"

    @property
    def list(self) -> str:
        return f"list_{self.noun}s"

    @property
    def summaries(self) -> str:
        return f"{self.prefix}JobSummaries"


KINDS = {
    "training": JobKind("training_job", "Training", "/aws/sagemaker/TrainingJobs"),
    "processing": JobKind("processing_job", "Processing", "/aws/sagemaker/ProcessingJobs"),
    "transform": JobKind("transform_job", "Transform", "/aws/sagemaker/TransformJobs"),
    "tuning": JobKind("hyper_parameter_tuning_job", "HyperParameterTuning", None),
}


def is_absence(error: Any) -> bool:
    """Whether a ClientError says that there is no such job."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "").lower()
    return code == "ResourceNotFound" or (
        code == "ValidationException" and ("not find" in message or "not found" in message)
    )


def instances(kind: str, job: Mapping[str, Any]) -> dict[str, int]:
    """Instance count of a described job by instance type; one `serverless` or `unknown` where it names no type."""
    if kind == "training":
        config = job.get("ResourceConfig", {})
    elif kind == "processing":
        config = job["ProcessingResources"]["ClusterConfig"]
    elif kind == "transform":
        config = job["TransformResources"]
    else:
        config = job.get("TrainingJobDefinition", {}).get("ResourceConfig", {})
    counts: dict[str, int] = {}
    for group in config.get("InstanceGroups", []):
        counts[group["InstanceType"]] = counts.get(group["InstanceType"], 0) + group["InstanceCount"]
    if counts:
        return counts
    # A job with preferences says which one it got; until then it is on its way to the first.
    first = {**config, **(config.get("InstancePreferences") or [{}])[0]}
    instance_type = config.get("SelectedInstanceType", first.get("InstanceType"))
    if instance_type is None:
        return {"serverless" if "ServerlessJobConfig" in job else "unknown": 1}
    return {str(instance_type): int(config.get("SelectedInstanceCount", first.get("InstanceCount", 1)))}


def cluster(kind: str, job: Mapping[str, Any]) -> tuple[str, int]:
    """Instance type and instance count of a described job; of several types their names and the sum."""
    counts = instances(kind, job)
    return ", ".join(counts), sum(counts.values())


def billable_seconds(kind: str, job: Mapping[str, Any], now: datetime) -> int:
    """Seconds that one instance of a described job is billed for, until `now` while it runs; 0 for a tuning job,
    whose trainings are billed."""
    if kind == "tuning":
        return 0
    if "BillableTimeInSeconds" in job:
        return int(job["BillableTimeInSeconds"])
    prefix = KINDS[kind].prefix
    started = job.get(f"{prefix}StartTime")
    if started is None:
        return 0
    return max(0, round(((job.get(f"{prefix}EndTime") or now) - started).total_seconds()))


def pool_seconds(job: Mapping[str, Any], now: datetime) -> int:
    """Seconds that each instance of a training waited in its warm pool, billed as well; until `now` while it waits."""
    pool = job.get("WarmPoolStatus", {})
    if "ResourceRetainedBillableTimeInSeconds" in pool:
        return int(pool["ResourceRetainedBillableTimeInSeconds"])
    ended = job.get("TrainingEndTime")
    if pool.get("Status") != "Available" or ended is None:
        return 0
    return max(0, round((now - ended).total_seconds()))


def places(kind: str, job: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The S3 URIs that a described job reads, and those that it writes."""
    if kind == "processing":
        inputs = [each.get("S3Input", {}) for each in job.get("ProcessingInputs", [])]
        outputs = [each["S3Output"] for each in job.get("ProcessingOutputConfig", {}).get("Outputs", [])]
        return [each["S3Uri"] for each in inputs if "S3Uri" in each], [each["S3Uri"] for each in outputs]
    if kind == "transform":
        source = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        return [source], [job["TransformOutput"]["S3OutputPath"]]
    holder = job["TrainingJobDefinition"] if kind == "tuning" else job
    channels = [each["DataSource"].get("S3DataSource", {}) for each in holder.get("InputDataConfig", [])]
    model = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    return [each["S3Uri"] for each in channels if "S3Uri" in each], [model] if model else []


def lacks_capacity(job: Mapping[str, Any]) -> bool:
    """Whether a described job ended because AWS had no instance for it.

    Source: https://docs.aws.amazon.com/batch/latest/userguide/sm_job_stuck_in_runnable_capacity.html
    """
    waited_in_vain = job.get("SecondaryStatus") == "MaxWaitTimeExceeded" and "TrainingStartTime" not in job
    return waited_in_vain or str(job.get("FailureReason", "")).startswith("CapacityError")


def interruptions(job: Mapping[str, Any]) -> int:
    """How often a spot training lost its instance."""
    return sum(each["Status"] == "Interrupted" for each in job.get("SecondaryStatusTransitions", []))
