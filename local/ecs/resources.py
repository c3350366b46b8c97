"""CloudFormation's AWS::ECS types. As on AWS, a service is complete when its deployment has reached a steady state."""

from __future__ import annotations

import time
from typing import Any

from ministack.services import cloudformation  # type: ignore[import-untyped]

from local.account.context import AccountContext
from local.account.resources.shapes import to_api
from local.ecs.service import EcsService
from local.ecs.store import Record, Store

Props = dict[str, Any]
CLUSTER = "AWS::ECS::Cluster"
PROVIDERS = "AWS::ECS::ClusterCapacityProviderAssociations"
TASK_DEFINITION = "AWS::ECS::TaskDefinition"
SERVICE = "AWS::ECS::Service"
STEADY_SECONDS = 600
POLL_SECONDS = 0.3


class ServiceFailedError(Exception):
    """A service's deployment failed, or did not become steady in time."""


class EcsResources:
    """The types' handlers; they call the API's own operations, so its checks hold."""

    def __init__(self, context: AccountContext, service: EcsService, store: Store) -> None:
        self._context = context
        self._ecs = service
        self._store = store
        self._created: dict[str, list[str]] = {}

    def install(self) -> None:
        """Register the handlers."""
        register = self._context.register_resource_type
        register(CLUSTER, self.create_cluster, self.update_cluster, self.delete_cluster)
        register(PROVIDERS, self.put_providers, self.update_providers, self.remove_providers)
        register(
            TASK_DEFINITION, self.register_definition, self.update_definition, self.deregister_definition
        )
        register(SERVICE, self.create_service, self.update_service, self.delete_service)

    def create_cluster(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Props]:
        """CreateCluster; `Ref` is the name."""
        renamed = {"Settings" if name == "ClusterSettings" else name: value for name, value in props.items()}
        request = to_api("ecs", "CreateCluster", renamed)
        request.setdefault("clusterName", f"{stack_name}-{logical_id}")
        cluster = self._ecs.call("CreateCluster", request)["cluster"]
        return cluster["clusterName"], {"Arn": cluster["clusterArn"]}

    def update_cluster(
        self, physical_id: str, _old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """Only a name is worth another cluster."""
        if new.get("ClusterName", physical_id) != physical_id:
            return self.create_cluster(logical_id or physical_id, new, stack_name)
        cluster = self._ecs.call("DescribeClusters", {"clusters": [physical_id]})["clusters"][0]
        return physical_id, {"Arn": cluster["clusterArn"]}

    def delete_cluster(self, physical_id: str, _props: Props) -> None:
        """DeleteCluster, which is refused while anything runs there: CloudFormation stops no task by itself."""
        self._ecs.call("DeleteCluster", {"cluster": physical_id})

    def put_providers(self, _logical_id: str, props: Props, _stack_name: str) -> tuple[str, Props]:
        """PutClusterCapacityProviders; `Ref` is the cluster."""
        self._ecs.call("PutClusterCapacityProviders", to_api("ecs", "PutClusterCapacityProviders", props))
        return props["Cluster"], {}

    def remove_providers(self, physical_id: str, _props: Props) -> None:
        """PutClusterCapacityProviders with none, which is refused while one of them is in use."""
        request = {"cluster": physical_id, "capacityProviders": [], "defaultCapacityProviderStrategy": []}
        self._ecs.call("PutClusterCapacityProviders", request)

    def update_providers(
        self, _physical_id: str, _old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """The same call again."""
        return self.put_providers(logical_id or "", new, stack_name)

    def register_definition(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Props]:
        """RegisterTaskDefinition; `Ref` is the revision's ARN."""
        request = to_api(
            "ecs", "RegisterTaskDefinition", _with_api_names({"Family": f"{stack_name}{logical_id}"} | props)
        )
        arn = self._ecs.call("RegisterTaskDefinition", request)["taskDefinition"]["taskDefinitionArn"]
        return arn, {"TaskDefinitionArn": arn}

    def update_definition(
        self, physical_id: str, _old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """Any change registers the next revision."""
        return self.register_definition(logical_id or physical_id, new, stack_name)

    def deregister_definition(self, physical_id: str, _props: Props) -> None:
        """DeregisterTaskDefinition."""
        self._ecs.call("DeregisterTaskDefinition", {"taskDefinition": physical_id})

    def create_service(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Props]:
        """CreateService. All services of a stack start side by side; the last one waits for all of them.

        The emulator creates resources one after the other, where AWS creates independent ones at once.
        """
        request = to_api("ecs", "CreateService", {"ServiceName": f"{stack_name}-{logical_id}"} | props)
        service = self._ecs.call("CreateService", request)["service"]
        arn = service["serviceArn"]
        created = self._created.setdefault(stack_name, [])
        created.append(arn)
        try:
            if len(created) >= _services_in_template(stack_name):
                del self._created[stack_name]
                for each in created:
                    self._wait_steady(each)
        except Exception:
            # CloudFormation deletes what it failed to create; the emulator forgets it.
            self.delete_service(arn, props)
            raise
        return arn, {"ServiceArn": arn, "Name": service["serviceName"]}

    def update_service(
        self, physical_id: str, old: Props, new: Props, _stack_name: str, _logical_id: str | None = None
    ) -> tuple[str, Props]:
        """UpdateService with what changed, then wait for the steady state."""
        replaced = ("ServiceName", "Cluster")
        if any(old.get(name) != new.get(name) for name in replaced):
            raise ValueError(
                f"{SERVICE}: {' and '.join(replaced)} can't change in place; destroy and deploy again"
            )
        fixed = {"ServiceName", "LaunchType", "Tags", "SchedulingStrategy", "EnableECSManagedTags"}
        props = {name: value for name, value in new.items() if name not in fixed} | {"Service": physical_id}
        self._ecs.call("UpdateService", to_api("ecs", "UpdateService", props))
        self._wait_steady(physical_id)
        return physical_id, {"ServiceArn": physical_id, "Name": physical_id.rpartition("/")[2]}

    def delete_service(self, physical_id: str, props: Props) -> None:
        """DeleteService, and wait until its tasks have stopped."""
        for created in self._created.values():
            if physical_id in created:
                created.remove(physical_id)
        cluster = props["Cluster"]
        self._ecs.call("DeleteService", {"cluster": cluster, "service": physical_id, "force": True})
        self._wait(lambda: physical_id not in self._store.services, f"{physical_id} to drain")

    def _wait_steady(self, arn: str) -> None:
        """Raise ServiceFailedError when the circuit breaker opens or the time is up."""
        started = time.monotonic()
        while True:
            with self._store.lock:
                service = self._store.services[arn]
                primary: Record = service["deployments"][0]
                failed = [item for item in service["deployments"] if item["rolloutState"] == "FAILED"]
                events = "; ".join(event["message"] for event in service["events"][:3])
            name = arn.rpartition("/")[2]
            if failed:
                raise ServiceFailedError(f"ECS Deployment Circuit Breaker was triggered for {name}: {events}")
            if primary["rolloutState"] == "COMPLETED":
                return
            if time.monotonic() - started > STEADY_SECONDS:
                raise ServiceFailedError(f"{name} did not stabilize in {STEADY_SECONDS} s: {events}")
            time.sleep(POLL_SECONDS)

    def _wait(self, done: Any, what: str) -> None:
        deadline = time.monotonic() + STEADY_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {STEADY_SECONDS} s for {what}")
            time.sleep(POLL_SECONDS)


def _services_in_template(stack_name: str) -> int:
    stack = cloudformation._stacks.get(stack_name) or {}
    resources = (stack.get("_template") or {}).get("Resources", {})
    return sum(resource.get("Type") == SERVICE for resource in resources.values())


def _with_api_names(props: Props) -> Props:
    """CloudFormation spells these members of a volume otherwise than the API does."""
    renamed = dict(props)
    renamed["Volumes"] = [
        {_volume_name(name): value for name, value in volume.items()} for volume in props.get("Volumes", [])
    ]
    for volume in renamed["Volumes"]:
        efs = volume.get("EfsVolumeConfiguration")
        if efs:
            volume["EfsVolumeConfiguration"] = {
                "FileSystemId" if name == "FilesystemId" else name: (
                    {"Iam" if key == "IAM" else key: item for key, item in value.items()}
                    if name == "AuthorizationConfig"
                    else value
                )
                for name, value in efs.items()
            }
    return renamed


def _volume_name(name: str) -> str:
    return "EfsVolumeConfiguration" if name == "EFSVolumeConfiguration" else name
