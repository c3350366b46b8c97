"""A job whose task instance doesn't exist: how long until the reaper, on its own schedule, has it stopped."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.gpu_leak.observer import Observer, wait_for
from ops.target import Target

# The reaper's interval, its grace time, and the start of the Lambda.
LIMIT_SECONDS = 480


def orphan_seconds(target: Target, observer: Observer) -> float | None:
    """Seconds from the job's start to its stop; None when it still ran after the limit."""
    parameter = target.client("ssm").get_parameter(Name=target.output("workflows", "SettingsParameter"))
    settings = json.loads(parameter["Parameter"]["Value"])
    run_id = f"no-such-run-{time.time_ns()}"
    client = target.client("sagemaker")
    client.create_processing_job(**_request(target, settings, run_id))
    wait_for(lambda: observer.of(run_id), seconds=60)
    [job] = observer.of(run_id)
    if not wait_for(lambda: job.left_at, seconds=LIMIT_SECONDS):
        observer.stop(job)
        return None
    assert job.left_at is not None
    return round(job.left_at - job.seen_at, 1)


def _request(target: Target, settings: dict[str, Any], run_id: str) -> dict[str, Any]:
    tags = {
        "updraft:project": target.config.project,
        "updraft:environment": target.config.environment,
        "updraft:dag": "no-such-dag",
        "updraft:run": run_id,
        "updraft:task": "job",
    }
    return {
        "ProcessingJobName": f"{target.prefix}-{run_id}",
        "RoleArn": settings["role_arn"],
        "AppSpecification": {
            "ImageUri": settings["training_image"],
            "ContainerEntrypoint": ["python", "-c", "import time; time.sleep(1500)"],
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 1800},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
