"""The engine: makes what runs equal to what the store says, a few times a second."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import zlib
from typing import Any

from local.account.context import AccountContext
from local.account.principals import RoleCredentials
from local.ecs.containers import Container, names_file
from local.ecs.engine import engine_of
from local.ecs.logs import LogShipper
from local.ecs.network import Addresses, Tunnel
from local.ecs.secrets import resolve
from local.ecs.service import EcsService, start_deployment, want_stop
from local.ecs.store import Record, Store, is_steady
from local.images import ImageError
from local.state_file import write_whole

POLL_SECONDS = 0.25
FORGET_STOPPED_SECONDS = 3600
LONGEST_BACK_OFF_SECONDS = 60
LEAST_FAILURES = 3
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
        self._tunnel = Tunnel(context.paths, self._names)
        self._logs = LogShipper(context)
        self._dns_names: dict[str, tuple[str, str]] = {}
        self._published: dict[str, list[str]] = {}
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
                self._step_service(service)
            self._forget_old()
        self._publish_names()
        self._store.save()

    # Tasks

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

    # Services

    def _step_service(self, service: Record) -> None:
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

    # Names

    def _names(self) -> dict[str, list[str]]:
        return self._published

    def _publish_names(self) -> None:
        """Write the addresses of steady tasks under their Cloud Map names, for the shim to read."""
        with self._store.lock:
            services = [service for service in self._store.services.values() if service["serviceRegistries"]]
        table: dict[str, list[str]] = {}
        for service in services:
            name, registry = self._registered_name(service)
            with self._store.lock:
                steady = [task for task in self._store.service_tasks(service) if is_steady(task)]
                own = [task["_address"] for task in steady if task["desiredStatus"] == "RUNNING"]
            table[name] = own or [task["_address"] for task in steady]
            self._register(registry, steady, self._published.get(name, []) != table[name])
        if table != self._published:
            # Containers have users of their own.
            write_whole(names_file(self._paths), table, mode=0o644)
            self._published = table

    def _registered_name(self, service: Record) -> tuple[str, str]:
        arn = service["serviceRegistries"][0]["registryArn"]
        if arn not in self._dns_names:
            client = self._context.boto3_client("servicediscovery")
            registry_id = arn.rpartition("/")[2]
            registry = client.get_service(Id=registry_id)["Service"]
            namespace_id = registry.get("NamespaceId") or registry["DnsConfig"]["NamespaceId"]
            namespace = client.get_namespace(Id=namespace_id)["Namespace"]["Name"]
            self._dns_names[arn] = (f"{registry['Name']}.{namespace}", registry_id)
        return self._dns_names[arn]

    def _register(self, registry_id: str, steady: list[Record], changed: bool) -> None:
        if not changed:
            return
        client: Any = self._context.boto3_client("servicediscovery")
        wanted = {task["taskArn"].rpartition("/")[2]: task["_address"] for task in steady}
        for instance in client.list_instances(ServiceId=registry_id)["Instances"]:
            if instance["Id"] not in wanted:
                with contextlib.suppress(client.exceptions.InstanceNotFound):
                    client.deregister_instance(ServiceId=registry_id, InstanceId=instance["Id"])
        for task_id, address in wanted.items():
            client.register_instance(
                ServiceId=registry_id, InstanceId=task_id, Attributes={"AWS_INSTANCE_IPV4": address}
            )
