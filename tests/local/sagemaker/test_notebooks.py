"""Notebook instances go through their documented states and refuse what SageMaker refuses."""

import base64
from pathlib import Path

import pytest

from local.account.json_api import ApiError
from local.sagemaker.service import SageMakerService
from local.sagemaker.store import Store

NAME = {"NotebookInstanceName": "n"}
LIFECYCLE = {"NotebookInstanceLifecycleConfigName": "scripts"}
INSTANCE = NAME | {
    "InstanceType": "ml.t3.medium",
    "RoleArn": "arn:aws:iam::000000000000:role/notebook",
    "SubnetId": "subnet-1",
    "SecurityGroupIds": ["sg-1"],
    "DirectInternetAccess": "Disabled",
}


@pytest.fixture
def sagemaker(tmp_path: Path) -> SageMakerService:
    return SageMakerService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")


def _status(sagemaker: SageMakerService) -> str:
    return str(sagemaker.call("DescribeNotebookInstance", NAME)["NotebookInstanceStatus"])


def test_instance_lives_stops_and_goes(sagemaker: SageMakerService) -> None:
    script = base64.b64encode(b"#!/bin/bash\n").decode()
    sagemaker.call("CreateNotebookInstanceLifecycleConfig", LIFECYCLE | {"OnStart": [{"Content": script}]})
    sagemaker.call("CreateNotebookInstance", INSTANCE | {"LifecycleConfigName": "scripts"})
    assert _status(sagemaker) == "Pending"
    sagemaker.notebooks.step()
    found = sagemaker.call("DescribeNotebookInstance", NAME)
    assert (found["NotebookInstanceStatus"], found["SecurityGroups"]) == ("InService", ["sg-1"])
    assert found["NotebookInstanceLifecycleConfigName"] == "scripts"
    sagemaker.call("StopNotebookInstance", NAME)
    sagemaker.notebooks.step()
    assert _status(sagemaker) == "Stopped"
    with pytest.raises(ApiError, match="in use by n"):
        sagemaker.call("DeleteNotebookInstanceLifecycleConfig", LIFECYCLE)
    sagemaker.call("DeleteNotebookInstance", NAME)
    sagemaker.notebooks.step()
    with pytest.raises(ApiError, match="RecordNotFound"):
        _status(sagemaker)
    sagemaker.call("DeleteNotebookInstanceLifecycleConfig", LIFECYCLE)


@pytest.mark.parametrize("operation", ["StopNotebookInstance", "DeleteNotebookInstance"])
def test_pending_instance_is_left_alone(sagemaker: SageMakerService, operation: str) -> None:
    sagemaker.call("CreateNotebookInstance", INSTANCE)
    with pytest.raises(ApiError, match=r"Status \(Pending\) not in"):
        sagemaker.call(operation, NAME)


def test_change_needs_a_stopped_instance(sagemaker: SageMakerService) -> None:
    sagemaker.call("CreateNotebookInstance", INSTANCE)
    sagemaker.notebooks.step()
    with pytest.raises(ApiError, match=r"Status \(InService\) not in"):
        sagemaker.call("UpdateNotebookInstance", NAME | {"InstanceType": "ml.t3.large"})
    sagemaker.call("StopNotebookInstance", NAME)
    sagemaker.notebooks.step()
    sagemaker.call("UpdateNotebookInstance", NAME | {"InstanceType": "ml.t3.large"})
    sagemaker.notebooks.step()
    found = sagemaker.call("DescribeNotebookInstance", NAME)
    assert (found["NotebookInstanceStatus"], found["InstanceType"]) == ("Stopped", "ml.t3.large")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (INSTANCE | {"LifecycleConfigName": "none"}, "RecordNotFound"),
        (
            {key: value for key, value in INSTANCE.items() if key != "SubnetId"},
            "DirectInternetAccess Disabled needs a SubnetId",
        ),
        (INSTANCE | {"InstanceType": "t3.medium"}, "InstanceType"),
    ],
)
def test_bad_instance_is_refused(sagemaker: SageMakerService, request_: dict[str, object], says: str) -> None:
    with pytest.raises(ApiError, match=says):
        sagemaker.call("CreateNotebookInstance", request_)


@pytest.mark.parametrize(
    ("content", "says"),
    [("no base64!", "not base64"), (base64.b64encode(b"x" * 16_385).decode(), "16385 characters|16384")],
)
def test_bad_script_is_refused(sagemaker: SageMakerService, content: str, says: str) -> None:
    request = LIFECYCLE | {"OnCreate": [{"Content": content}]}
    with pytest.raises(ApiError, match=says):
        sagemaker.call("CreateNotebookInstanceLifecycleConfig", request)
