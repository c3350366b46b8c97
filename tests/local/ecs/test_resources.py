"""CloudFormation's ECS types refuse what AWS refuses: nothing is taken away beneath what runs on it."""

from pathlib import Path
from typing import Any, cast

import pytest

from local.account.context import AccountContext
from local.ecs.resources import EcsResources
from local.ecs.scheduler import ServiceScheduler
from local.ecs.service import EcsError, EcsService
from local.ecs.store import Store
from tests.local.ecs.definitions import DEFINITION

PROVIDERS = {
    "Cluster": "c",
    "CapacityProviders": ["FARGATE", "FARGATE_SPOT"],
    "DefaultCapacityProviderStrategy": [],
}
ON_SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}


class Stack:
    """A cluster with its capacity providers, as CloudFormation has made them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "state.json")
        self.ecs = EcsService(self.store, account_id="000000000000", region="us-east-1")
        self.resources = EcsResources(cast(AccountContext, None), self.ecs, self.store)
        self.resources.create_cluster("Cluster", {"ClusterName": "c"}, "stack")
        self.resources.put_providers("Providers", PROVIDERS, "stack")
        self.ecs.call("RegisterTaskDefinition", DEFINITION)

    def start(self, **request: Any) -> str:
        answer = self.ecs.call("RunTask", {"cluster": "c", "taskDefinition": "job", **request})
        return str(answer["tasks"][0]["taskArn"])


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def refusal(delete: Any, *arguments: Any) -> str:
    with pytest.raises(EcsError) as refused:
        delete(*arguments)
    return refused.value.code


def test_cluster_goes_only_when_its_last_task_has_stopped(stack: Stack) -> None:
    task = stack.start()
    assert refusal(stack.resources.delete_cluster, "c", {}) == "ClusterContainsTasksException"
    assert stack.store.tasks[task]["desiredStatus"] == "RUNNING"
    stack.ecs.call("StopTask", {"cluster": "c", "task": task})
    assert refusal(stack.resources.delete_cluster, "c", {}) == "ClusterContainsTasksException"
    stack.store.tasks[task]["lastStatus"] = "STOPPED"
    stack.resources.delete_cluster("c", {})
    assert stack.ecs.call("ListClusters", {}) == {"clusterArns": []}


def test_cluster_goes_only_when_its_last_service_has_drained(stack: Stack) -> None:
    stack.ecs.call("CreateService", {"cluster": "c", "serviceName": "s", "taskDefinition": "job"})
    assert refusal(stack.resources.delete_cluster, "c", {}) == "ClusterContainsServicesException"
    [service] = stack.store.services.values()
    stack.ecs.call("DeleteService", {"cluster": "c", "service": "s"})
    ServiceScheduler(stack.store, stack.ecs).step(service)
    stack.resources.delete_cluster("c", {})


def test_capacity_provider_goes_only_when_no_service_uses_it(stack: Stack) -> None:
    service = {"cluster": "c", "serviceName": "s", "taskDefinition": "job"}
    stack.ecs.call("CreateService", service | ON_SPOT)
    assert refusal(stack.resources.remove_providers, "c", PROVIDERS) == "ResourceInUseException"
    stack.ecs.call("UpdateService", {"cluster": "c", "service": "s", "capacityProviderStrategy": []})
    stack.resources.remove_providers("c", PROVIDERS)
    [cluster] = stack.ecs.call("DescribeClusters", {"clusters": ["c"]})["clusters"]
    assert cluster["capacityProviders"] == []


def test_capacity_provider_goes_only_when_no_task_runs_on_it(stack: Stack) -> None:
    task = stack.start(**ON_SPOT)
    assert refusal(stack.resources.remove_providers, "c", PROVIDERS) == "ResourceInUseException"
    stack.store.tasks[task]["lastStatus"] = "STOPPED"
    stack.resources.remove_providers("c", PROVIDERS)
