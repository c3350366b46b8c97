"""Builds through the agent: the application's own buildspec, from its source on S3 to an image in the repository."""

import io
import json
import logging
import os
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import images, processes
from local.account.context import AccountContext
from local.codebuild.plane import CodeBuildPlane
from local.codebuild.service import CodeBuildService
from local.codebuild.store import Store
from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.storage import client
from stacks.constructs.pets_build import stage_application
from tests.local.sagemaker.hosting import Emulator, wait_until

pytestmark = pytest.mark.account
GROUP = "/builds"


class Agent:
    """The agent as the account has it, and short ways to use it."""

    def __init__(self, paths: LocalPaths) -> None:
        self.paths = paths
        self.s3, self.ecr = client(paths, "s3"), client(paths, "ecr")
        self.open()

    def open(self) -> None:
        """An agent on the state that is on disk, as after a start of the account."""
        store = Store(self.paths.codebuild / "state.json")
        self.service = CodeBuildService(store, account_id="000000000000", region="us-east-1")
        self.plane = CodeBuildPlane(AccountContext(self.paths, logging.getLogger("agent")), store)
        self.plane.start()

    def project(self, name: str, source: bytes) -> None:
        self.s3.put_object(Bucket="data", Key=f"{name}.zip", Body=source)
        self.service.call(
            "CreateProject",
            {
                "name": name,
                "source": {"type": "S3", "location": f"data/{name}.zip"},
                "artifacts": {"type": "NO_ARTIFACTS"},
                "environment": {
                    "type": "LINUX_CONTAINER",
                    "image": "aws/codebuild/standard:7.0",
                    "computeType": "BUILD_GENERAL1_SMALL",
                },
                "serviceRole": "arn:aws:iam::000000000000:role/build",
                "logsConfig": {"cloudWatchLogs": {"status": "ENABLED", "groupName": GROUP}},
            },
        )

    def start(self, project: str, **variables: str) -> str:
        given = [{"name": name, "value": value} for name, value in variables.items()]
        request = {"projectName": project, "environmentVariablesOverride": given}
        return str(self.service.call("StartBuild", request)["build"]["id"])

    def build(self, build_id: str) -> dict[str, Any]:
        [found] = self.service.call("BatchGetBuilds", {"ids": [build_id]})["builds"]
        return dict(found)

    def ended(self, build_id: str) -> dict[str, Any]:
        wait_until(lambda: self.build(build_id)["buildComplete"], f"{build_id} ends")
        return self.build(build_id)

    def log(self, build: dict[str, Any]) -> str:
        events = client(self.paths, "logs").get_log_events(
            logGroupName=GROUP, logStreamName=build["logs"]["streamName"]
        )["events"]
        return "\n".join(event["message"] for event in events)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPaths]:
    paths = LocalPaths(tmp_path_factory.mktemp("account"), port=free_port())
    emulator = Emulator(paths)
    emulator.start()
    client(paths, "s3").create_bucket(Bucket="data")
    yield paths
    emulator.kill()


@pytest.fixture
def agent(account: LocalPaths) -> Iterator[Agent]:
    made = Agent(account)
    yield made
    made.plane.stop()
    left = processes.all_pids(account)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(account.codebuild, ignore_errors=True)
    assert not left, "a build's process outlived its agent"


def zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            files.write(file, file.relative_to(folder))
    return content.getvalue()


def model_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as files:
        for name, text in (("model.onnx", b"weights"), ("model.json", b'{"labels": []}')):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            files.addfile(member, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def application(agent: Agent, tmp_path: Path) -> Iterator[str]:
    """The repository of the application; its project is `pets`, its model lies at `s3://data/model.tar.gz`."""
    stage_application(tmp_path)
    agent.project("pets", zipped(tmp_path))
    agent.s3.put_object(Bucket="data", Key="model.tar.gz", Body=model_archive())
    yield agent.ecr.create_repository(repositoryName="pets", imageTagMutability="IMMUTABLE")["repository"][
        "repositoryUri"
    ]
    agent.ecr.delete_repository(repositoryName="pets", force=True)


@pytest.mark.skipif(
    not (LocalPaths(Path()).environments / "pets-application" / "bin" / "python").exists(),
    reason="the application's environment is made with: ./updraft up --pipelines",
)
def test_applications_own_buildspec_pushes_an_image_that_runs_here(agent: Agent, application: str) -> None:
    build_id = agent.start(
        "pets", MODEL_URI="s3://data/model.tar.gz", REPOSITORY_URI=application, IMAGE_TAG="one"
    )
    build = agent.ended(build_id)
    assert build["buildStatus"] == "SUCCEEDED", agent.log(build)
    phases = {phase["phaseType"]: phase.get("phaseStatus") for phase in build["phases"]}
    assert phases["PRE_BUILD"] == phases["BUILD"] == phases["POST_BUILD"] == "SUCCEEDED"
    assert list(phases)[-1] == "COMPLETED"
    found = agent.ecr.describe_images(repositoryName="pets", imageIds=[{"imageTag": "one"}])
    assert len(found["imageDetails"]) == 1
    image = images.load(agent.paths, f"{application}:one")
    assert image.name == "pets-application"
    assert image.entrypoint == ["python", "-m", "ml.pets.application"]
    assert (image.root / "opt/updraft/model/model.onnx").read_bytes() == b"weights"
    assert (image.root / "opt/updraft/ml/pets/application.py").is_file()
    assert not (image.root / "opt/updraft/ml/pets/train.py").exists()
    assert "docker push" in agent.log(build)


def test_missing_model_fails_before_anything_is_built(agent: Agent, application: str) -> None:
    build = agent.ended(
        agent.start("pets", MODEL_URI="s3://data/gone.tar.gz", REPOSITORY_URI=application, IMAGE_TAG="two")
    )
    assert build["buildStatus"] == "FAILED"
    failed = next(phase for phase in build["phases"] if phase.get("phaseStatus") == "FAILED")
    assert failed["phaseType"] == "PRE_BUILD"
    assert "aws s3 cp" in failed["contexts"][0]["message"]
    assert agent.ecr.list_images(repositoryName="pets")["imageIds"] == []


def slow_source(tmp_path: Path) -> bytes:
    spec = {"version": 0.2, "phases": {"build": {"commands": ["echo awake", "sleep 60"]}}}
    (tmp_path / "buildspec.yml").write_text(json.dumps(spec))
    return zipped(tmp_path)


def test_stopped_build_leaves_nothing_behind(agent: Agent, tmp_path: Path) -> None:
    agent.project("slow", slow_source(tmp_path))
    build_id = agent.start("slow")
    wait_until(lambda: agent.build(build_id)["currentPhase"] == "BUILD", "it builds")
    agent.service.call("StopBuild", {"id": build_id})
    assert agent.ended(build_id)["buildStatus"] == "STOPPED"
    wait_until(lambda: not list((agent.paths.codebuild / "builds").iterdir()), "its folder is gone")


def test_build_does_not_outlive_the_account(agent: Agent, tmp_path: Path) -> None:
    agent.project("slow", slow_source(tmp_path))
    build_id = agent.start("slow")
    wait_until(lambda: agent.build(build_id)["currentPhase"] == "BUILD", "it builds")
    agent.plane.stop()
    assert processes.all_pids(agent.paths) == []
    agent.open()
    build = agent.build(build_id)
    assert (build["buildStatus"], build["buildComplete"]) == ("FAULT", True)
