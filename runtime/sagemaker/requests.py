"""What every job's request must say: its network, a hard limit, and with spot a longest wait and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.settings import WorkflowSettings

# Spot capacity may take this many times the run itself, waiting and interruptions included.
SPOT_WAIT_FACTOR = 2
MOST_INSTANCE_TYPES = 5
TUNING_LIMITS = {"MaxNumberOfTrainingJobs", "MaxRuntimeInSeconds"}


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


def instance_types(kind: str, request: Mapping[str, Any], fallbacks: Sequence[str]) -> list[str]:
    """The instance types to try, in order; raises ValueError for a job or a list that can't have them."""
    if kind not in ("training", "processing"):
        raise ValueError(f"instance_fallbacks: a {kind} job has none; training and processing jobs can have")
    types = [_cluster(kind, request)["InstanceType"], *fallbacks]
    if len(types) > MOST_INSTANCE_TYPES or len(set(types)) < len(types):
        raise ValueError(
            f"instance_fallbacks: {', '.join(types)} came; SageMaker takes at most {MOST_INSTANCE_TYPES} types, "
            "each once, the request's own included"
        )
    return types


def with_preferences(kind: str, request: Mapping[str, Any], types: Sequence[str]) -> dict[str, Any]:
    """The request on the first of several types that has capacity, which SageMaker finds by itself on demand."""
    cluster = {key: value for key, value in _cluster(kind, request).items() if key != "InstanceType"}
    preferences = [{"InstanceType": each} for each in types]
    return _with_cluster(kind, request, {**cluster, "InstancePreferences": preferences})


def with_instance_type(kind: str, request: Mapping[str, Any], instance_type: str) -> dict[str, Any]:
    """The request on another instance type."""
    return _with_cluster(kind, request, {**_cluster(kind, request), "InstanceType": instance_type})


def _cluster(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    holder = request["ProcessingResources"] if kind == "processing" else request
    cluster: dict[str, Any] = holder["ClusterConfig" if kind == "processing" else "ResourceConfig"]
    return cluster


def _with_cluster(kind: str, request: Mapping[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
    if kind == "processing":
        return {**request, "ProcessingResources": {"ClusterConfig": cluster}}
    return {**request, "ResourceConfig": cluster}


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
    if kind == "tuning" and not TUNING_LIMITS & _resource_limits(request).keys():
        raise ValueError(
            "HyperParameterTuningJobConfig.ResourceLimits: neither MaxNumberOfTrainingJobs nor MaxRuntimeInSeconds "
            "came; a tuning job needs one of them to end by itself"
        )


def _resource_limits(request: Mapping[str, Any]) -> dict[str, int]:
    limits: dict[str, int] = request.get("HyperParameterTuningJobConfig", {}).get("ResourceLimits", {})
    return limits


def longest_seconds(kind: str, request: Mapping[str, Any], settings: WorkflowSettings) -> int:
    """How long the job may take from its submission to its end, waiting for instances apart."""
    if kind == "transform":
        return settings.max_runtime_seconds
    if kind == "tuning":
        one = longest_seconds("training", request["TrainingJobDefinition"], settings)
        limits = _resource_limits(request)
        # A training that runs when the tuning's own time is up may go on to its end.
        ends = [limits["MaxRuntimeInSeconds"] + one] if "MaxRuntimeInSeconds" in limits else []
        if "MaxNumberOfTrainingJobs" in limits:
            ends.append(one * limits["MaxNumberOfTrainingJobs"])
        return min(ends)
    condition = request["StoppingCondition"]
    return int(condition.get("MaxWaitTimeInSeconds", condition["MaxRuntimeInSeconds"]))
