"""What is ended before the stacks are destroyed: whatever starts tasks, then every task, then what lies in buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops import cdk, teardown
from ops.__main__ import app
from ops.console import OperatorError
from tests.ops.conftest import FakeTarget

Json = dict[str, Any]
SERVICE_GROUP = "service:scheduler"
WORKER_GROUP = "family:updraft-dev-worker-default"


class Cluster:
    """ECS as `destroy` sees it: what is asked to stop takes two looks, a service starts what it lacks."""

    def __init__(self, *groups: str, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.services: dict[str, Json] = {}
        self.tasks = {f"arn:task/{number}": self._task(group) for number, group in enumerate(groups)}
        self.log: list[str] = []
        self.answers: dict[str, Any] = {
            "DescribeClusters": lambda _: {"clusters": [{"status": "ACTIVE"}]},
            "ListServices": lambda _: {"serviceArns": self._listed()},
            "DescribeServices": lambda asked: {"services": self._described(asked["services"])},
            "UpdateService": self._update,
            "DeleteService": self._delete,
            "ListTasks": self._list,
            "DescribeTasks": self._describe,
            "StopTask": self._stop,
        }

    def add_service(self, name: str, count: int) -> None:
        self.services[name] = {
            "serviceArn": f"arn:service/{name}",
            "serviceName": name,
            "status": "ACTIVE",
            "desiredCount": count,
        }

    @staticmethod
    def _task(group: str) -> Json:
        return {"group": group, "lastStatus": "RUNNING", "desiredStatus": "RUNNING"}

    def _listed(self) -> list[str]:
        return [item["serviceArn"] for item in self.services.values() if item["status"] == "ACTIVE"]

    def _described(self, asked: list[str]) -> list[Json]:
        names = [name for each in asked if (name := each.rpartition("/")[2]) in self.services]
        seen = [dict(self.services[name]) for name in names]
        for name in names:
            if self.services[name]["status"] == "DRAINING":
                self.services[name]["status"] = "INACTIVE"
        return seen

    def _update(self, asked: Json) -> Json:
        name = asked["service"].rpartition("/")[2]
        self.log.append(f"{name} to {asked['desiredCount']}")
        self.services[name]["desiredCount"] = asked["desiredCount"]
        # It had decided on this one before.
        self.tasks[f"arn:task/late-{name}"] = self._task(f"service:{name}")
        return {}

    def _delete(self, asked: Json) -> Json:
        assert asked["force"]
        self.log.append(f"{asked['service']} deleted")
        self.services[asked["service"]]["status"] = "DRAINING"
        return {}

    def _list(self, asked: Json) -> Json:
        return {
            "taskArns": [
                arn for arn, task in self.tasks.items() if task["desiredStatus"] == asked["desiredStatus"]
            ]
        }

    def _describe(self, asked: Json) -> Json:
        answer = {"tasks": [{"taskArn": arn, **self.tasks[arn]} for arn in asked["tasks"]]}
        for task in self.tasks.values():
            if task["desiredStatus"] == "STOPPED" and not self.stubborn:
                task["lastStatus"] = "STOPPED"
        return answer

    def _stop(self, asked: Json) -> Json:
        self.log.append(f"stop {asked['task'].rpartition('/')[2]}")
        assert self.tasks[asked["task"]]["desiredStatus"] == "RUNNING", "asked twice"
        self.tasks[asked["task"]]["desiredStatus"] = "STOPPED"
        return {}

    @property
    def living(self) -> list[str]:
        return [arn for arn, task in self.tasks.items() if task["lastStatus"] != "STOPPED"]


def place(cluster: Cluster, **outputs: Json) -> FakeTarget:
    target = FakeTarget(cluster.answers)
    target.__dict__["outputs_found"] = {"airflow": {"ClusterName": "updraft-dev"}} | outputs
    return target


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "POLL_SECONDS", 0)
    monkeypatch.setattr(teardown, "DRAIN_SECONDS", 10)


def test_services_go_to_zero_and_tasks_without_one_are_stopped() -> None:
    cluster = Cluster(SERVICE_GROUP, WORKER_GROUP, "family:updraft-dev-maintenance")
    cluster.add_service("scheduler", 1)
    cluster.add_service("webserver", 0)
    teardown.stop_tasks(place(cluster))
    assert cluster.log[0] == "scheduler to 0"
    assert "webserver to 0" not in cluster.log
    assert sorted(cluster.log[1:]) == ["stop 0", "stop 1", "stop 2", "stop late-scheduler"]
    assert cluster.living == []


def test_service_of_a_pipeline_is_deleted_and_waited_for() -> None:
    cluster = Cluster()
    cluster.add_service("pets", 2)
    teardown.stop_tasks(place(cluster, pets={"ServiceName": "pets"}))
    assert cluster.log == ["pets deleted"]
    assert cluster.services["pets"]["status"] == "INACTIVE"


def test_task_that_does_not_stop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "DRAIN_SECONDS", 0.2)
    with pytest.raises(
        OperatorError, match=rf"still running in updraft-dev after .*: {WORKER_GROUP}; destroy"
    ):
        teardown.stop_tasks(place(Cluster(WORKER_GROUP, stubborn=True)))


@pytest.mark.parametrize("found", [{}, {"storage": {"LogsBucket": "logs"}}])
def test_environment_without_its_cluster_has_nothing_to_stop(found: Json) -> None:
    target = FakeTarget({})
    target.__dict__["outputs_found"] = found
    teardown.stop_tasks(target)
    assert target.__dict__["asked"] == []


@pytest.mark.parametrize("clusters", [[], [{"status": "INACTIVE"}]])
def test_cluster_that_is_gone_has_nothing_to_stop(clusters: list[Json]) -> None:
    target = FakeTarget({"DescribeClusters": lambda _: {"clusters": clusters, "failures": []}})
    target.__dict__["outputs_found"] = {"airflow": {"ClusterName": "updraft-dev"}}
    teardown.stop_tasks(target)
    assert [name for name, _ in target.__dict__["asked"]] == ["DescribeClusters"]


@pytest.mark.parametrize("keeps", [True, False])
def test_destroy_takes_its_steps_in_order(keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(WORKER_GROUP)
    told = cluster.log

    def listed(_asked: Json) -> Json:
        told.append("empty")
        return {}

    def forgotten(asked: Json) -> Json:
        told.append(f"forget {len(asked['Names'])}")
        assert all(name.startswith("/updraft/dev/") for name in asked["Names"])
        return {}

    target = FakeTarget(
        cluster.answers | {"ListObjectVersions": listed, "DeleteParameters": forgotten},
        keep_data_on_destroy=keeps,
    )
    target.__dict__["outputs_found"] = {
        "airflow": {"ClusterName": "updraft-dev"},
        "storage": {"LogsBucket": "logs"},
    }

    def run(_target: Any, arguments: list[str], **_: Any) -> str:
        told.append(" ".join(arguments[:2]))
        return ""

    monkeypatch.setattr("ops.target.target_of", lambda _name: target)
    monkeypatch.setattr(cdk, "synth", lambda _target: Path())
    monkeypatch.setattr(cdk, "run_cdk", run)
    result = CliRunner().invoke(app, ["destroy", "--environment", "dev", "--yes"])
    assert result.exit_code == 0, result.output
    emptied = [] if keeps else ["empty"]
    assert told == ["destroy updraft-dev-scaling", "stop 0", *emptied, "destroy --all", "forget 4"]
