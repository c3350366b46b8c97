"""The ECS API: requests are checked, tokens make nothing twice, deployments follow one another."""

from pathlib import Path
from typing import Any

import pytest

from local.ecs.service import EcsError, EcsService
from local.ecs.store import Store
from tests.local.ecs.definitions import DEFINITION


@pytest.fixture
def ecs(tmp_path: Path) -> EcsService:
    service = EcsService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")
    service.call("CreateCluster", {"clusterName": "c"})
    service.call("RegisterTaskDefinition", DEFINITION)
    return service


def test_same_client_token_starts_one_task(ecs: EcsService) -> None:
    request = {"cluster": "c", "taskDefinition": "job", "clientToken": "one"}
    first, again = ecs.call("RunTask", request), ecs.call("RunTask", request)
    other = ecs.call("RunTask", request | {"clientToken": "two"})
    assert first["tasks"][0]["taskArn"] == again["tasks"][0]["taskArn"] != other["tasks"][0]["taskArn"]
    assert len(ecs.call("ListTasks", {"cluster": "c", "family": "job"})["taskArns"]) == 2


def test_family_names_its_newest_active_revision(ecs: EcsService) -> None:
    second = ecs.call("RegisterTaskDefinition", DEFINITION)["taskDefinition"]["taskDefinitionArn"]
    found = ecs.call("DescribeTaskDefinition", {"taskDefinition": "job"})["taskDefinition"]
    assert found["taskDefinitionArn"] == second
    ecs.call("DeregisterTaskDefinition", {"taskDefinition": second})
    assert ecs.call("DescribeTaskDefinition", {"taskDefinition": "job"})["taskDefinition"]["revision"] == 1


def test_new_revision_is_the_primary_deployment_and_the_old_one_drains(ecs: EcsService) -> None:
    ecs.call(
        "CreateService", {"cluster": "c", "serviceName": "s", "taskDefinition": "job", "desiredCount": 1}
    )
    ecs.call("RegisterTaskDefinition", DEFINITION)
    service = ecs.call("UpdateService", {"cluster": "c", "service": "s", "taskDefinition": "job:2"})[
        "service"
    ]
    assert [(item["status"], item["taskDefinition"][-1]) for item in service["deployments"]] == [
        ("PRIMARY", "2"),
        ("ACTIVE", "1"),
    ]
    assert service["deployments"][0]["rolloutState"] == "IN_PROGRESS"


def test_nothing_of_ours_leaves_through_the_api(ecs: EcsService) -> None:
    task = ecs.call("RunTask", {"cluster": "c", "taskDefinition": "job"})["tasks"][0]
    described = ecs.call("DescribeTasks", {"cluster": "c", "tasks": [task["taskArn"]]})["tasks"][0]
    assert not [name for name in described if name.startswith("_")]


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("RunTask", {"cluster": "nowhere", "taskDefinition": "job"}, "ClusterNotFoundException"),
        ("RunTask", {"cluster": "c", "taskDefinition": "other"}, "ClientException"),
        ("RunTask", {"cluster": "c", "taskDefinition": "job", "count": 11}, "InvalidParameterException"),
        ("RunTask", {"cluster": "c", "taskDefinition": "job", "colour": "red"}, "InvalidParameterException"),
        ("StopTask", {"cluster": "c", "task": "gone"}, "InvalidParameterException"),
        ("ExecuteCommand", {"cluster": "c"}, "UnknownOperationException"),
    ],
)
def test_wrong_request_gets_awss_error(
    ecs: EcsService, operation: str, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(EcsError) as refused:
        ecs.call(operation, request_)
    assert refused.value.code == code


def test_state_survives_a_restart(tmp_path: Path, ecs: EcsService) -> None:
    ecs._store.save()
    again = EcsService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")
    assert (
        again.call("DescribeTaskDefinition", {"taskDefinition": "job:1"})["taskDefinition"]["family"] == "job"
    )
