"""The CodeBuild API: requests are held against the model, a token starts one build, what isn't honoured is refused."""

from pathlib import Path
from typing import Any

import pytest

from local.codebuild.resources import CodeBuildResources
from local.codebuild.service import CodeBuildError, CodeBuildService
from local.codebuild.store import Store

PROJECT: dict[str, Any] = {
    "name": "images",
    "source": {"type": "S3", "location": "bucket/source.zip"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {
        "type": "LINUX_CONTAINER",
        "image": "aws/codebuild/standard:7.0",
        "computeType": "BUILD_GENERAL1_SMALL",
        "environmentVariables": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
    },
    "serviceRole": "arn:aws:iam::000000000000:role/build",
}


@pytest.fixture
def codebuild(tmp_path: Path) -> CodeBuildService:
    service = CodeBuildService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")
    service.call("CreateProject", PROJECT)
    return service


def test_build_is_queued_with_the_projects_variables_and_its_own(codebuild: CodeBuildService) -> None:
    given = [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]
    build = codebuild.call("StartBuild", {"projectName": "images", "environmentVariablesOverride": given})[
        "build"
    ]
    assert (build["buildStatus"], build["currentPhase"], build["buildNumber"]) == ("IN_PROGRESS", "QUEUED", 1)
    variables = {item["name"]: item["value"] for item in build["environment"]["environmentVariables"]}
    assert variables == {"A": "1", "B": "2", "C": "3"}
    assert not [name for name in build if name.startswith("_")]


def test_same_token_starts_one_build(codebuild: CodeBuildService) -> None:
    request = {"projectName": "images", "idempotencyToken": "one"}
    first, again = codebuild.call("StartBuild", request), codebuild.call("StartBuild", request)
    other = codebuild.call("StartBuild", request | {"idempotencyToken": "two"})
    assert first["build"]["id"] == again["build"]["id"] != other["build"]["id"]
    assert len(codebuild.call("ListBuildsForProject", {"projectName": "images"})["ids"]) == 2


def test_builds_that_are_not_there_are_told(codebuild: CodeBuildService) -> None:
    assert codebuild.call("BatchGetBuilds", {"ids": ["images:gone"]}) == {
        "builds": [],
        "buildsNotFound": ["images:gone"],
    }


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("StartBuild", {"projectName": "gone"}, "ResourceNotFoundException"),
        ("StartBuild", {"projectName": "images", "imageOverride": "x"}, "InvalidInputException"),
        ("StartBuild", {"projectName": "images", "colour": "red"}, "InvalidInputException"),
        ("StopBuild", {"id": "images:gone"}, "ResourceNotFoundException"),
        ("CreateProject", PROJECT, "ResourceAlreadyExistsException"),
        ("CreateProject", PROJECT | {"name": "b", "source": {"type": "GITHUB"}}, "InvalidInputException"),
        ("CreateProject", PROJECT | {"name": "b", "vpcConfig": {}}, "InvalidInputException"),
        ("RetryBuild", {"id": "images:gone"}, "UnknownOperationException"),
    ],
)
def test_wrong_request_gets_awss_error(
    codebuild: CodeBuildService, operation: str, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(CodeBuildError) as refused:
        codebuild.call(operation, request_)
    assert refused.value.code == code


def test_cloudformation_makes_changes_and_deletes_a_project(codebuild: CodeBuildService) -> None:
    resources = CodeBuildResources(codebuild)
    props = {
        "Source": {"Type": "S3", "Location": "bucket/a.zip", "BuildSpec": "other.yml"},
        "Artifacts": {"Type": "NO_ARTIFACTS"},
        "Environment": {
            "Type": "LINUX_CONTAINER", "Image": "i", "ComputeType": "BUILD_GENERAL1_SMALL", "PrivilegedMode": "true",
        },
        "ServiceRole": PROJECT["serviceRole"],
        "TimeoutInMinutes": "5",
        "Tags": [{"Key": "a", "Value": "b"}],
    }  # fmt: skip
    name, attributes = resources.create("Project", props, "stack")
    assert attributes["Arn"].endswith(f":project/{name}")
    assert resources.update(name, props, props | {"TimeoutInMinutes": "6"}, "stack")[0] == name
    [project] = codebuild.call("BatchGetProjects", {"names": [name]})["projects"]
    assert project["timeoutInMinutes"] == 6
    assert project["source"]["buildspec"] == "other.yml"
    assert project["environment"]["privilegedMode"] is True
    resources.delete(name, props)
    assert codebuild.call("ListProjects", {})["projects"] == ["images"]
