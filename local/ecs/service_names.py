"""The Cloud Map names of services."""

from __future__ import annotations

import contextlib
from typing import Any

from local.account.context import AccountContext
from local.ecs.containers import names_file
from local.ecs.store import Record, Store, is_steady
from local.state_file import write_whole


class ServiceNames:
    """Registers steady tasks with Cloud Map, and writes their addresses down for the shim."""

    def __init__(self, context: AccountContext, store: Store) -> None:
        self._context = context
        self._paths = context.paths
        self._store = store
        self._dns_names: dict[str, tuple[str, str]] = {}
        self._published: dict[str, list[str]] = {}

    def table(self) -> dict[str, list[str]]:
        """The addresses of each name."""
        return self._published

    def publish(self) -> None:
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
