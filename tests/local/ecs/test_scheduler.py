"""Services keep their desired count; a deployment replaces the one before, or gives way to it."""

import time
from pathlib import Path

import pytest

from local.ecs.scheduler import LEAST_FAILURES, ServiceScheduler
from local.ecs.service import EcsService
from local.ecs.store import Record, Store
from tests.local.ecs.definitions import DEFINITION


class Cluster:
    """A cluster with one service, whose tasks the test starts and ends."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "state.json")
        self.ecs = EcsService(self.store, account_id="000000000000", region="us-east-1")
        self._scheduler = ServiceScheduler(self.store, self.ecs)
        self.ecs.call("CreateCluster", {"clusterName": "c"})
        for _ in range(2):
            self.ecs.call("RegisterTaskDefinition", DEFINITION)
        breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
        service = {"serviceName": "s", "taskDefinition": "job:1", "deploymentConfiguration": breaker}
        self.ecs.call("CreateService", {"cluster": "c", "desiredCount": 2, **service})
        [self.service] = self.store.services.values()

    def step(self) -> list[Record]:
        """One step that no earlier failure holds up; returns the tasks that are wanted."""
        self.service["_not_before"] = 0.0
        self._scheduler.step(self.service)
        return [task for task in self.store.service_tasks(self.service) if task["desiredStatus"] == "RUNNING"]

    def settle(self) -> list[Record]:
        """Steps and starts until nothing changes; returns the tasks that run."""
        for _ in range(5):
            for task in self.step():
                task["lastStatus"] = "RUNNING"
            for task in self.store.service_tasks(self.service):
                if task["desiredStatus"] == "STOPPED":
                    task["lastStatus"] = "STOPPED"
        return self.step()


def fail(task: Record) -> None:
    task |= {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stoppedAt": time.time()}
    task |= {"stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited"}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def revisions(tasks: list[Record]) -> list[str]:
    return [task["taskDefinitionArn"].rpartition(":")[2] for task in tasks]


def test_service_has_its_desired_count_again_after_a_failure(cluster: Cluster) -> None:
    first = cluster.settle()
    assert revisions(first) == ["1", "1"]
    assert cluster.service["deployments"][0]["rolloutState"] == "COMPLETED"
    fail(first[0])
    assert len(cluster.settle()) == 2
    cluster.ecs.call("UpdateService", {"cluster": "c", "service": "s", "desiredCount": 1})
    assert len(cluster.settle()) == 1


def test_failure_is_waited_after_longer_each_time(cluster: Cluster) -> None:
    waits = []
    for _ in range(2):
        fail(cluster.step()[0])
        before = time.time()
        cluster.step()
        waits.append(round(cluster.service["_not_before"] - before))
    assert waits == [1, 2]


def test_old_tasks_stay_until_the_new_ones_are_steady(cluster: Cluster) -> None:
    cluster.settle()
    cluster.ecs.call("UpdateService", {"cluster": "c", "service": "s", "taskDefinition": "job:2"})
    assert revisions(cluster.step()) == ["1", "1", "2", "2"]
    assert revisions(cluster.step()) == ["1", "1", "2", "2"]
    assert revisions(cluster.settle()) == ["2", "2"]
    assert [item["rolloutState"] for item in cluster.service["deployments"]] == ["COMPLETED"]


def test_deployment_that_can_not_start_is_rolled_back(cluster: Cluster) -> None:
    cluster.settle()
    cluster.ecs.call("UpdateService", {"cluster": "c", "service": "s", "taskDefinition": "job:2"})
    for _ in range(LEAST_FAILURES):
        new = [task for task in cluster.step() if task["taskDefinitionArn"].endswith(":2")]
        fail(new[0])
        cluster.step()
    assert revisions(cluster.settle()) == ["1", "1"]
    assert cluster.service["taskDefinition"].endswith(":1")
    assert cluster.service["deployments"][0]["rolloutState"] == "COMPLETED"


def test_deleted_service_goes_when_its_tasks_have(cluster: Cluster) -> None:
    cluster.settle()
    cluster.ecs.call("DeleteService", {"cluster": "c", "service": "s", "force": True})
    assert cluster.step() == []
    for task in cluster.store.service_tasks(cluster.service):
        task["lastStatus"] = "STOPPED"
    cluster.step()
    assert cluster.store.services == {}
