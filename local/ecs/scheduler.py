"""Keeps services at their desired count, and rolls their deployments out or back."""

from __future__ import annotations

import math
import time

from local.ecs.service import EcsService, start_deployment, want_stop
from local.ecs.store import Record, Store, is_steady

LONGEST_BACK_OFF_SECONDS = 60
LEAST_FAILURES = 3


class ServiceScheduler:
    """Adds tasks to the store and asks for the stop of others; the engine starts and stops them."""

    def __init__(self, store: Store, ecs: EcsService) -> None:
        self._store = store
        self._ecs = ecs

    def step(self, service: Record) -> None:
        """One step of a service, while the caller holds the store."""
        tasks = self._store.service_tasks(service)
        if service["status"] == "DRAINING":
            for task in tasks:
                want_stop(task, "Service deleted", "ServiceSchedulerInitiated")
            if not tasks:
                del self._store.services[service["serviceArn"]]
                self._store.changed()
            return
        primary = service["deployments"][0]
        self._count_failures(service, primary)
        own = [
            task
            for task in tasks
            if task["startedBy"] == primary["id"] and task["desiredStatus"] == "RUNNING"
        ]
        others = [
            task
            for task in tasks
            if task["startedBy"] != primary["id"] and task["desiredStatus"] == "RUNNING"
        ]
        desired = service["desiredCount"]
        self._start_missing(service, primary, own, len(tasks))
        steady = sum(is_steady(task) for task in own)
        self._drain(service, others, steady)
        for task in own[desired:]:
            want_stop(task, "Scaling activity", "ServiceSchedulerInitiated")
        if (
            primary["rolloutState"] == "IN_PROGRESS"
            and steady >= desired
            and len(own) == desired
            and not others
        ):
            primary |= {
                "rolloutState": "COMPLETED",
                "rolloutStateReason": f"ECS deployment {primary['id']} completed.",
                "updatedAt": time.time(),
            }
            service["_last_good"] = primary["taskDefinition"]
            service["deployments"] = [primary]
            self._event(service, f"(service {service['serviceName']}) has reached a steady state.")

    def _start_missing(self, service: Record, primary: Record, own: list[Record], total: int) -> None:
        desired = service["desiredCount"]
        if len(own) >= desired or primary["rolloutState"] == "FAILED" or time.time() < service["_not_before"]:
            return
        most = math.floor(desired * service["deploymentConfiguration"]["maximumPercent"] / 100)
        definition = self._store.task_definitions[primary["taskDefinition"]]
        for _ in range(min(desired - len(own), most - total)):
            self._ecs.new_task(
                service["clusterArn"],
                definition,
                group=f"service:{service['serviceName']}",
                started_by=primary["id"],
                tags=service["tags"] if service["propagateTags"] == "SERVICE" else [],
                network=service["networkConfiguration"],
                execute_command=service["enableExecuteCommand"],
            )

    def _drain(self, service: Record, others: list[Record], steady: int) -> None:
        """Stop tasks of older deployments as far as the least healthy share allows."""
        least = math.ceil(
            service["desiredCount"] * service["deploymentConfiguration"]["minimumHealthyPercent"] / 100
        )
        healthy = steady + sum(is_steady(task) for task in others)
        for task in others:
            if not is_steady(task):
                want_stop(task, "Scaling activity", "ServiceSchedulerInitiated")
            elif healthy - 1 >= least:
                healthy -= 1
                want_stop(task, "Scaling activity", "ServiceSchedulerInitiated")

    def _count_failures(self, service: Record, primary: Record) -> None:
        """Back off after each failure, and open the circuit breaker when a deployment can't get up."""
        failed = [
            task
            for task in self._store.tasks.values()
            if (
                task["startedBy"] == primary["id"]
                and task["lastStatus"] == "STOPPED"
                and task.get("stopCode") in ("EssentialContainerExited", "TaskFailedToStart")
            )
            or (
                task["startedBy"] == primary["id"]
                and "health checks" in task.get("stoppedReason", "")
                and task["lastStatus"] == "STOPPED"
            )
        ]
        new = len(failed) - primary["failedTasks"]
        if new <= 0:
            return
        primary["failedTasks"] = len(failed)
        service["_failures_in_row"] += new
        delay = min(2 ** (service["_failures_in_row"] - 1), LONGEST_BACK_OFF_SECONDS)
        service["_not_before"] = time.time() + delay
        newest = max(failed, key=lambda task: task["stoppedAt"])
        codes = [container.get("exitCode") for container in newest["containers"]]
        self._event(
            service,
            f"(task {newest['taskArn'].rpartition('/')[2]}) stopped with {codes}: {newest['stoppedReason']}",
        )
        breaker = service["deploymentConfiguration"].get("deploymentCircuitBreaker", {})
        threshold = min(200, max(LEAST_FAILURES, math.ceil(service["desiredCount"] / 2)))
        if (
            breaker.get("enable")
            and primary["rolloutState"] == "IN_PROGRESS"
            and primary["failedTasks"] >= threshold
        ):
            self._open_breaker(service, primary, rollback=breaker.get("rollback", False))

    def _open_breaker(self, service: Record, primary: Record, *, rollback: bool) -> None:
        primary |= {
            "rolloutState": "FAILED",
            "rolloutStateReason": "ECS deployment circuit breaker: tasks failed to start.",
        }
        self._event(service, f"(deployment {primary['id']}) failed: tasks failed to start.")
        last_good = service["_last_good"]
        if rollback and last_good and last_good != primary["taskDefinition"]:
            service["taskDefinition"] = last_good
            start_deployment(service)
            service["deployments"][0]["rolloutStateReason"] = "ECS deployment circuit breaker: rolling back."

    def _event(self, service: Record, message: str) -> None:
        service["events"].insert(0, {"id": f"{time.time_ns()}", "createdAt": time.time(), "message": message})
        del service["events"][100:]
        self._store.changed()
