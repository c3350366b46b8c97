"""The engine: makes what runs equal to what the store says, a few times a second."""

from __future__ import annotations

import threading
import time
import zlib

from local.account.context import AccountContext
from local.account.principals import RoleCredentials
from local.ecs.containers import Container
from local.ecs.engine import engine_of
from local.ecs.logs import LogShipper
from local.ecs.network import Addresses, Tunnel
from local.ecs.scheduler import ServiceScheduler
from local.ecs.secrets import resolve
from local.ecs.service import EcsService, want_stop
from local.ecs.service_names import ServiceNames
from local.ecs.store import Record, Store
from local.images import ImageError

POLL_SECONDS = 0.25
FORGET_STOPPED_SECONDS = 3600
STOP_SECONDS = 45


class EcsPlane:
    """Starts, watches and stops the processes of tasks, and keeps services at their desired count."""

    name = "ecs"

    def __init__(self, context: AccountContext, store: Store) -> None:
        self._context = context
        self._paths = context.paths
        self._store = store
        self._ecs = EcsService(store, account_id=context.account_id, region=context.region)
        self._engine = engine_of(context.paths)
        self._running: dict[str, list[Container]] = {}
        self._addresses = Addresses()
        self._services = ServiceScheduler(store, self._ecs)
        self._names = ServiceNames(context, store)
        self._tunnel = Tunnel(context.paths, self._names.table)
        self._logs = LogShipper(context)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ecs", daemon=True)

    def start(self) -> None:
        """Mark what an earlier account left as stopped, then keep the desired state."""
        self._engine.open()
        with self._store.lock:
            for task in self._store.tasks.values():
                if task["lastStatus"] != "STOPPED":
                    want_stop(task, "The host was restarted", "ServiceSchedulerInitiated")
                    self._mark_stopped(task, [])
            for service in self._store.services.values():
                service["_failures_in_row"], service["_not_before"] = 0, 0.0
        self._logs.start()
        self._tunnel.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop every task as ECS would, all at once, then the engine."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        deadline = time.monotonic() + STOP_SECONDS
        while any(self._running.values()) and time.monotonic() < deadline:
            for arn, running in list(self._running.items()):
                for container in running:
                    container.ask_to_stop()
                if all(container.exit_code() is not None for container in running):
                    self._end(self._store.tasks[arn], "The host was stopped")
            time.sleep(0.05)
        for running in self._running.values():
            for container in running:
                container.clean_up(self._paths)
        self._tunnel.stop()
        self._logs.stop()
        self._store.changed()
        self._store.save()

    def containers_of(self, task_arn: str) -> list[Container]:
        """The processes of a task that runs; none of one that doesn't."""
        return list(self._running.get(task_arn, []))

    def state(self) -> str:
        """`running` while the engine's thread does its work."""
        return "running" if self._thread.is_alive() else "stopped"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception:
                self._context.logger.exception("the ECS engine failed in one step and goes on")
            self._stopping.wait(POLL_SECONDS)

    def _step(self) -> None:
        with self._store.lock:
            tasks = list(self._store.tasks.values())
            services = list(self._store.services.values())
        for task in tasks:
            self._step_task(task)
        with self._store.lock:
            for service in services:
                self._services.step(service)
            self._forget_old()
        self._names.publish()
        self._store.save()

    def _step_task(self, task: Record) -> None:
        arn, status = task["taskArn"], task["lastStatus"]
        if status == "STOPPED":
            return
        if status == "PROVISIONING":
            if task["desiredStatus"] == "STOPPED":
                self._mark_stopped(task, [])
            else:
                self._start_task(task)
            return
        running = self._running.get(arn, [])
        if task["desiredStatus"] == "STOPPED":
            for container in running:
                container.ask_to_stop()
        if any(c.exit_code() is not None and c.definition.get("essential", True) for c in running):
            want_stop(task, "Essential container in task exited", "EssentialContainerExited")
        if task["desiredStatus"] == "STOPPED" and all(c.exit_code() is not None for c in running):
            self._end(task, task["stoppedReason"])
            return
        if task["desiredStatus"] == "RUNNING":
            self._take_health(task, running)

    def _start_task(self, task: Record) -> None:
        definition = self._store.task_definitions[task["taskDefinitionArn"]]
        address = self._addresses.take(task["taskArn"])
        started: list[Container] = []
        try:
            execution_role = self._execution_role(task, definition)
            credentials = self._task_credentials(task, definition)
            for container in definition["containerDefinitions"]:
                secrets = {
                    item["name"]: resolve(self._context, item["valueFrom"], execution_role)
                    for item in container.get("secrets", [])
                }
                one = self._engine.start(
                    task, definition, container, address=address, secrets=secrets, credentials=credentials
                )
                started.append(one)
                self._logs.add(one, task, execution_role)
        except Exception as error:
            for one in started:
                one.clean_up(self._paths)
            self._engine.remove(task["taskArn"].rpartition("/")[2])
            known = isinstance(error, ImageError | OSError)
            kind = (
                "CannotPullContainerError" if isinstance(error, ImageError) else "ResourceInitializationError"
            )
            if not known:
                self._context.logger.exception("task %s did not start", task["taskArn"])
            with self._store.lock:
                want_stop(task, f"{kind}: {error}", "TaskFailedToStart")
                self._mark_stopped(task, [])
            return
        with self._store.lock:
            self._running[task["taskArn"]] = started
            task |= {"lastStatus": "RUNNING", "startedAt": time.time(), "pullStoppedAt": time.time()}
            for item in task["containers"]:
                item["lastStatus"] = "RUNNING"
                item["runtimeId"] = (
                    f"{task['taskArn'].rpartition('/')[2]}-{zlib.crc32(item['name'].encode()):010d}"
                )
                if task["enableExecuteCommand"]:
                    item["managedAgents"] = [{"name": "ExecuteCommandAgent", "lastStatus": "RUNNING"}]
                item["networkInterfaces"] = [
                    {"attachmentId": task["attachments"][0]["id"], "privateIpv4Address": address}
                ]
            task["attachments"][0]["status"] = "ATTACHED"
            task["attachments"][0]["details"].append({"name": "privateIPv4Address", "value": address})
            task["_address"] = address
            self._store.changed()

    def _execution_role(self, task: Record, definition: Record) -> RoleCredentials | None:
        """What the agent works with before the containers start; the images are pulled with it."""
        role = task["overrides"].get("executionRoleArn") or definition.get("executionRoleArn")
        if not role:
            return None
        permissions = self._context.permissions
        credentials = permissions.credentials(role, task["taskArn"].rpartition("/")[2])
        for image in {container["image"] for container in definition["containerDefinitions"]}:
            permissions.needed(credentials, permissions.reader.of_an_execution_role(image))
        return credentials

    def _task_credentials(self, task: Record, definition: Record) -> dict[str, str]:
        """The containers' own: none without a task role, as on Fargate."""
        role = task["overrides"].get("taskRoleArn") or definition.get("taskRoleArn")
        if not role:
            return {}
        permissions = self._context.permissions
        credentials = permissions.credentials(role, task["taskArn"].rpartition("/")[2])
        if task["enableExecuteCommand"]:
            permissions.needed(credentials, permissions.reader.of_sessions())
        for volume in definition.get("volumes", []):
            efs = volume.get("efsVolumeConfiguration", {})
            if efs.get("authorizationConfig", {}).get("iam") == "ENABLED":
                mounts = [
                    mount
                    for container in definition["containerDefinitions"]
                    for mount in container.get("mountPoints", [])
                    if mount["sourceVolume"] == volume["name"]
                ]
                writes = any(not mount.get("readOnly") for mount in mounts)
                needed = permissions.reader.of_a_mount(efs["fileSystemId"], writes=writes)
                permissions.needed(credentials, needed)
        return credentials.environment()

    def _take_health(self, task: Record, running: list[Container]) -> None:
        for container in running:
            container.probe()
        states = [c.health for c in running if "healthCheck" in c.definition]
        worst = next(
            (state for state in ("UNHEALTHY", "UNKNOWN") if state in states),
            "HEALTHY" if states else "UNKNOWN",
        )
        if task["healthStatus"] != worst:
            with self._store.lock:
                task["healthStatus"] = worst
                for item, container in zip(task["containers"], running, strict=True):
                    item["healthStatus"] = container.health
                self._store.changed()
        if worst == "UNHEALTHY" and task["group"].startswith("service:"):
            want_stop(task, "Task failed container health checks", "ServiceSchedulerInitiated")

    def _end(self, task: Record, reason: str) -> None:
        running = self._running.pop(task["taskArn"], [])
        ends = [(container.exit_code(), container.reason()) for container in running]
        for container in running:
            self._logs.finish(container)
            container.clean_up(self._paths)
        self._engine.remove(task["taskArn"].rpartition("/")[2])
        with self._store.lock:
            want_stop(task, reason, "ServiceSchedulerInitiated")
            self._mark_stopped(task, ends)

    def _mark_stopped(self, task: Record, ends: list[tuple[int | None, str | None]]) -> None:
        task |= {"lastStatus": "STOPPED", "stoppedAt": time.time(), "executionStoppedAt": time.time()}
        for item, (code, reason) in zip(task["containers"], ends, strict=False):
            if code is not None:
                item["exitCode"] = code
            if reason is not None:
                item["reason"] = reason
        for item in task["containers"]:
            item["lastStatus"] = "STOPPED"
        self._addresses.give_back(task["taskArn"])
        self._store.changed()

    def _forget_old(self) -> None:
        horizon = time.time() - FORGET_STOPPED_SECONDS
        old = [
            arn
            for arn, task in self._store.tasks.items()
            if task["lastStatus"] == "STOPPED" and task.get("stoppedAt", 0) < horizon
        ]
        for arn in old:
            del self._store.tasks[arn]
