"""What every job's request must say: its network, a hard limit, and with spot a longest wait and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.settings import WorkflowSettings

# Spot capacity may take this many times the run itself, waiting and interruptions included.
SPOT_WAIT_FACTOR = 2


def in_vpc(kind: str, request: Mapping[str, Any], settings: WorkflowSettings) -> dict[str, Any]:
    """The request with its job in the environment's VPC, unless it names a network itself.

    A transform job has no network of its own: it runs in its model's (`vpc_config`).
    """
    if kind == "tuning":
        definition = in_vpc("training", request["TrainingJobDefinition"], settings)
        return {**request, "TrainingJobDefinition": definition}
    if kind == "training":
        return {"VpcConfig": vpc_config(settings), **request}
    if kind == "processing":
        network = {"VpcConfig": vpc_config(settings), **request.get("NetworkConfig", {})}
        return {**request, "NetworkConfig": network}
    return dict(request)


def vpc_config(settings: WorkflowSettings) -> dict[str, list[str]]:
    """Subnets and security groups of jobs, as SageMaker's requests have them."""
    return {"Subnets": settings.subnet_ids, "SecurityGroupIds": settings.security_group_ids}


def with_spot(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request on spot instances; raises ValueError for what spot can't do."""
    if kind not in ("training", "tuning"):
        raise ValueError(f"spot: a {kind} job can't run on spot; only training and tuning jobs can")
    if kind == "tuning":
        definition = with_spot("training", request["TrainingJobDefinition"])
        return {**request, "TrainingJobDefinition": definition}
    if "CheckpointConfig" not in request:
        raise ValueError(
            "spot: the request has no CheckpointConfig, so that an interruption would lose all that was learned; "
            'add {"S3Uri": …, "LocalPath": "/opt/ml/checkpoints"}'
        )
    condition = request["StoppingCondition"]
    wait = condition["MaxRuntimeInSeconds"] * SPOT_WAIT_FACTOR
    return {
        **request,
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxWaitTimeInSeconds": wait, **condition},
    }


def check_limit(kind: str, request: Mapping[str, Any], settings: WorkflowSettings) -> None:
    """Raise ValueError unless the job ends by itself within the environment's limit."""
    if kind == "transform":
        return  # the API has no limit for it; the trigger's deadline stops it
    holder = request["TrainingJobDefinition"] if kind == "tuning" else request
    limit = holder.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    if limit is None or limit > settings.max_runtime_seconds:
        raise ValueError(
            f"StoppingCondition.MaxRuntimeInSeconds: {limit} came; every job has a hard limit of at most "
            f"{settings.max_runtime_seconds} s (workflows.max_runtime_seconds of the environment)"
        )


def longest_seconds(kind: str, request: Mapping[str, Any], settings: WorkflowSettings) -> int:
    """How long the job may take from its submission to its end, waiting for instances apart."""
    if kind == "transform":
        return settings.max_runtime_seconds
    if kind == "tuning":
        one = longest_seconds("training", request["TrainingJobDefinition"], settings)
        limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
        return one * int(limits.get("MaxNumberOfTrainingJobs", 1))
    condition = request["StoppingCondition"]
    return int(condition.get("MaxWaitTimeInSeconds", condition["MaxRuntimeInSeconds"]))
