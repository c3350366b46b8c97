"""A build's phases: what follows what after a failure, what commands see of one another, how a build ends."""

import json
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.codebuild.build import Build
from local.codebuild.buildspec import BuildspecError, parse
from local.codebuild.service import CodeBuildService
from local.codebuild.store import Store
from local.state_file import write_whole

Run = Callable[..., dict[str, Any]]


class Storage:
    """The account's S3, as a build's host uses it, in memory."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self.objects: dict[str, bytes] = {}

    def download_file(self, uri: str, file: Path) -> None:
        assert uri == "s3://bucket/source.zip"
        file.write_bytes(self._source.read_bytes())

    def put(self, uri: str, body: bytes) -> None:
        self.objects[uri] = body


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a buildspec to its end; the answer has the build, its `log`, and the `objects` that it made."""

    def start(buildspec: str, *, stop_after: float | None = None, **project: Any) -> dict[str, Any]:
        service = CodeBuildService(Store(tmp_path / "state.json"), account_id="0" * 12, region="us-east-1")
        service.call(
            "CreateProject",
            {
                "name": "images",
                "source": {"type": "S3", "location": "bucket/source.zip"},
                "artifacts": {"type": "NO_ARTIFACTS"},
                "environment": {
                    "type": "LINUX_CONTAINER",
                    "image": "i",
                    "computeType": "BUILD_GENERAL1_SMALL",
                    "environmentVariables": [{"name": "GIVEN", "value": "it's given"}],
                },
                "serviceRole": "arn:aws:iam::000000000000:role/build",
                "logsConfig": {"cloudWatchLogs": {"status": "DISABLED"}},
            }
            | project,
        )
        build = service.call("StartBuild", {"projectName": "images"})["build"]
        directory, source = tmp_path / "build", tmp_path / "source.zip"
        with zipfile.ZipFile(source, "w") as files:
            files.writestr("buildspec.yml", buildspec)
            files.writestr("folder/file.txt", "content")
        artifacts = project.get("artifacts", {"type": "NO_ARTIFACTS"})
        spec = {"build": build, "artifacts": artifacts, "root": str(tmp_path), "port": 1}
        write_whole(directory / "build.json", spec)
        host = Build(directory)
        storage = Storage(source)
        monkeypatch.setattr(host, "storage", storage)
        if stop_after is not None:
            threading.Timer(stop_after, (directory / "stop").touch).start()
        host.run()
        report: dict[str, Any] = json.loads((directory / "status.json").read_text())
        log = directory / "build.log"
        return report | {"log": log.read_text() if log.is_file() else "", "objects": storage.objects}

    return start


def phases(build: dict[str, Any]) -> dict[str, str]:
    return {phase["phaseType"]: phase.get("phaseStatus", "") for phase in build["phases"]}


def test_commands_share_exports_and_the_folder_over_all_phases(run: Run) -> None:
    build = run("""
version: 0.2
env:
  variables: {GREETING: hello, GIVEN: overridden}
  exported-variables: [MADE]
phases:
  install:
    commands: ["cd folder", "export MADE=\\"$GREETING $GIVEN\\""]
  build:
    commands: ["cat file.txt", "echo made=$MADE succeeding=$CODEBUILD_BUILD_SUCCEEDING"]
""")
    assert build["buildStatus"] == "SUCCEEDED"
    assert "content[Container]" in build["log"]
    assert "made=hello it's given succeeding=1" in build["log"]
    assert build["exportedEnvironmentVariables"] == [{"name": "MADE", "value": "hello it's given"}]


@pytest.mark.parametrize(
    ("failing", "extra", "expected"),
    [
        ("install", "", {"INSTALL": "FAILED"}),
        ("pre_build", "", {"INSTALL": "SUCCEEDED", "PRE_BUILD": "FAILED"}),
        ("build", "", {"BUILD": "FAILED", "POST_BUILD": "SUCCEEDED"}),
        ("build", "    on-failure: ABORT\n", {"BUILD": "FAILED"}),
        ("post_build", "", {"BUILD": "SUCCEEDED", "POST_BUILD": "FAILED"}),
    ],
)
def test_after_a_failure_only_what_codebuild_runs_is_run(
    run: Run, failing: str, extra: str, expected: dict[str, str]
) -> None:
    text = "version: 0.2\nphases:\n"
    for name in ("install", "pre_build", "build", "post_build"):
        command = "exit 3" if name == failing else 'echo "ran $CODEBUILD_BUILD_SUCCEEDING"'
        text += f"  {name}:\n    commands: ['{command}']\n    finally: ['echo finally-{name}']\n"
        text += extra if name == failing else ""
    build = run(text)
    assert build["buildStatus"] == "FAILED"
    found = phases(build)
    assert {name: found.get(name) for name in expected} == expected
    if failing in ("install", "pre_build") or extra:
        assert "POST_BUILD" not in found
    assert f"finally-{failing}" in build["log"]
    [failed] = [phase for phase in build["phases"] if phase.get("phaseStatus") == "FAILED"]
    assert failed["contexts"][0]["statusCode"] == "COMMAND_EXECUTION_ERROR"
    assert "exit status 3" in failed["contexts"][0]["message"]
    if found.get("POST_BUILD") == "SUCCEEDED":
        assert "ran 0" in build["log"]


def test_stopped_build_ends_at_once_with_its_processes(run: Run) -> None:
    started = time.monotonic()
    build = run("version: 0.2\nphases:\n  build:\n    commands: ['sleep 60']\n", stop_after=0.5)
    assert build["buildStatus"] == "STOPPED"
    assert time.monotonic() - started < 10


def test_artifacts_go_where_the_project_says(run: Run) -> None:
    build = run(
        "version: 0.2\nphases:\n  build:\n    commands: ['true']\nartifacts:\n  files: ['**/*.txt']\n",
        artifacts={"type": "S3", "location": "made", "path": "out", "name": "all"},
    )
    assert build["objects"] == {"s3://made/out/all/folder/file.txt": b"content"}


def test_missing_buildspec_fails_the_download(run: Run) -> None:
    build = run("version: 0.2", source={"type": "S3", "location": "bucket/source.zip", "buildspec": "no.yml"})
    assert phases(build)["DOWNLOAD_SOURCE"] == "FAILED"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 0.1\nphases: {build: {commands: [a]}}", "version: 0.1"),
        ("version: 0.2\nphases: {deploy: {commands: [a]}}", "phases.deploy"),
        ("version: 0.2\nphases: {build: {commands: a}}", "phases.build.commands"),
        ("version: 0.2\nphases: {build: {commands: [a]}}\ncache: {paths: []}", "cache"),
        ("version: 0.2\nenv: {shell: fish}\nphases: {build: {commands: [a]}}", "fish"),
        ("version: 0.2", "phases: missing"),
        (": :", "YAML_FILE_ERROR"),
    ],
)
def test_buildspec_says_what_is_wrong_with_it(text: str, reason: str) -> None:
    with pytest.raises(BuildspecError, match=reason.replace(".", r"\.")):
        parse(text)
