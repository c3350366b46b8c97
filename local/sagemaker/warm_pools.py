"""Warm pools: the instances that a completed training leaves for the next one of its kind. No machine stands behind
them here; what is kept is who waits, for how long, and what that is billed for.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from local.account.json_api import ApiError
from local.sagemaker.store import Record, Store

TRAINING = "TrainingJob"
# What two trainings have in common when one takes over the other's instances.
SAME_RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
SAME_JOB = (
    "RoleArn",
    "VpcConfig",
    "EnableInterContainerTrafficEncryption",
    "EnableNetworkIsolation",
)


class WarmPools:
    """Follows the pools of a store; the host's thread calls it with the store's lock held."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fill(self, job: Record) -> None:
        """Leave the instances of a training that has completed, when it asked for that."""
        seconds = job["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0)
        if seconds and job["TrainingJobStatus"] == "Completed":
            job["WarmPoolStatus"] = {"Status": "Available"}
            job["_pool_until"] = time.time() + seconds

    def take(self, job: Record) -> None:
        """Let a training that starts have the instances of one before it."""
        if not job["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0):
            return
        for pool in self._available():
            if _key(pool) == _key(job):
                self._end(pool, "Reused", ReusedByJob=job["TrainingJobName"])
                return

    def step(self) -> None:
        """End every pool whose time is up."""
        for pool in self._available():
            if time.time() >= pool["_pool_until"]:
                self._end(pool, "Terminated")

    def update(self, request: Record) -> Record:
        """UpdateTrainingJob: only the time that a pool waits can be changed here; 0 ends it."""
        job = self._store.of(TRAINING).get(request["TrainingJobName"])
        if job is None:
            raise ApiError("ResourceNotFound", "Requested resource not found.")
        unavailable = sorted(set(request) - {"TrainingJobName", "ResourceConfig"})
        if unavailable:
            raise ApiError(
                "ValidationException", f"{', '.join(unavailable)} is not available in the local account"
            )
        if job.get("WarmPoolStatus", {}).get("Status") != "Available":
            raise ApiError(
                "ValidationException", f"{job['TrainingJobName']} has no warm pool that is available"
            )
        seconds = request.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0)
        job["ResourceConfig"] = {**job["ResourceConfig"], "KeepAlivePeriodInSeconds": seconds}
        job["_pool_until"] = time.time() + seconds
        self.step()
        return {"TrainingJobArn": job["TrainingJobArn"]}

    def _available(self) -> Iterator[Record]:
        for job in self._store.of(TRAINING).values():
            if job.get("WarmPoolStatus", {}).get("Status") == "Available":
                yield job

    def _end(self, pool: Record, status: str, **more: str) -> None:
        waited = max(0.0, min(time.time(), pool["_pool_until"]) - pool["TrainingEndTime"])
        pool["WarmPoolStatus"] = {
            "Status": status,
            "ResourceRetainedBillableTimeInSeconds": math.ceil(waited),
            **more,
        }
        self._store.changed()


def _key(job: Record) -> tuple[object, ...]:
    resources = tuple(job["ResourceConfig"].get(key) for key in SAME_RESOURCES)
    return resources + tuple(job.get(key) for key in SAME_JOB)
