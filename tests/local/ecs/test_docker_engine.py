"""What the engine is told to run, word by word; a stand-in for `docker` writes down what it was called with."""

from __future__ import annotations

import json
import stat
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from local import docker, processes
from local.docker import Docker, DockerError
from local.ecs.docker_engine import DockerContainer, DockerEngine
from local.ecs.engine import engine_of
from local.images import ImageError
from local.paths import LocalPaths

STAND_IN = """#!/bin/sh
shift 2
{ for word in "$@"; do printf '%s\\037' "$word"; done; printf 'secret=%s\\n' "$DATABASE_PASSWORD"; } >> "$CALLS"
case "$1 $2" in
  "image inspect") case "$5" in *:there) echo '{"Env": ["PYTHONPATH=/opt/app", "LANG=C.UTF-8"]}' ;; *) echo gone >&2; exit 1 ;; esac ;;
  "inspect --format") echo true ;;
  "create "*) [ -z "$REFUSE" ] || { echo "$REFUSE" >&2; exit 125; } ;;
  "start --attach") exit 137 ;;
  "ps --all") echo abc ;;
  "rm --force") [ "$4" != gone ] || { echo "Error: No such container: gone" >&2; exit 1; } ;;
esac
"""
TASK: dict[str, Any] = {
    "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/c/0123abc",
    "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/p-scheduler:3",
    "overrides": {"containerOverrides": [{"name": "main", "environment": [{"name": "EXTRA", "value": "1"}]}]},
}
DEFINITION: dict[str, Any] = {
    "name": "main",
    "image": "registry/assets:there",
    "command": ["airflow", "scheduler"],
    "environment": [{"name": "PLAIN", "value": "two words"}],
    "readonlyRootFilesystem": True,
    "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    "mountPoints": [
        {"sourceVolume": "main-tmp", "containerPath": "/tmp", "readOnly": False},
        {"sourceVolume": "releases", "containerPath": "/mnt/releases", "readOnly": True},
    ],
    "stopTimeout": 600,
}
TASK_DEFINITION: dict[str, Any] = {
    "cpu": "512",
    "memory": "1024",
    "volumes": [
        {"name": "main-tmp"},
        {"name": "releases", "efsVolumeConfiguration": {"fileSystemId": "fs-01234567"}},
    ],
}


class Calls:
    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, command: str) -> list[list[str]]:
        """The words of each call of a command, the stand-in's note about the secret last."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [words for line in lines if (words := line.split("\037"))[0] == command]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return Calls(tmp_path / "calls")


@pytest.fixture
def paths(tmp_path: Path) -> LocalPaths:
    made = LocalPaths(tmp_path / "state")
    made.root.mkdir()
    return made


def start(paths: LocalPaths, **changed: Any) -> DockerContainer:
    engine = DockerEngine(paths, Docker("unix:///engine.sock", paths.root))
    secrets = {"DATABASE_PASSWORD": "very secret"}
    container = engine.start(
        TASK,
        TASK_DEFINITION,
        DEFINITION | changed,
        address="127.77.0.3",
        secrets=secrets,
        credentials={"AWS_ACCESS_KEY_ID": "of-the-task"},
    )
    assert isinstance(container, DockerContainer)
    container.process.wait(timeout=10)
    return container


def after(words: list[str], option: str) -> list[str]:
    return [following for word, following in pairwise(words) if word == option]


def test_container_gets_everything_of_its_task_definition(calls: Calls, paths: LocalPaths) -> None:
    start(paths)
    [words] = calls.of("create")
    assert after(words, "--cpus") == ["0.5"]
    assert after(words, "--memory") == after(words, "--memory-swap") == ["1024m"]
    assert {"--read-only", "--init"} <= set(words)
    assert after(words, "--cap-drop") == ["ALL"]
    variables = {"PLAIN=two words", "EXTRA=1", "PYTHONPATH=/run/updraft/shim:/opt/app"}
    assert variables | {"AWS_ACCESS_KEY_ID=of-the-task"} <= set(after(words, "--env"))
    mounts = after(words, "--mount")
    assert f"type=bind,source={paths.root}/efs/fs-01234567,target=/mnt/releases,readonly" in mounts
    assert any(m.startswith("type=volume,source=updraft-") and m.endswith("target=/tmp") for m in mounts)
    assert words[-4:-1] == ["updraft:there", "airflow", "scheduler"]


def test_secret_is_handed_over_beside_the_command_line(calls: Calls, paths: LocalPaths) -> None:
    start(paths)
    [words] = calls.of("create")
    assert "DATABASE_PASSWORD" in after(words, "--env")
    assert not [word for word in words[:-1] if "very secret" in word]
    assert words[-1] == "secret=very secret"


def test_own_limits_and_entry_point_come_first(calls: Calls, paths: LocalPaths) -> None:
    start(paths, cpu=256, memory=300, entryPoint=["sh", "-c"], command=["true"], user="7")
    [words] = calls.of("create")
    assert (after(words, "--cpus"), after(words, "--memory")) == (["0.25"], ["300m"])
    assert after(words, "--entrypoint") == ["sh"]
    assert words[-4:-1] == ["updraft:there", "-c", "true"]
    assert after(words, "--user") == ["7"]


def test_stop_is_the_engines_own_and_capped_as_on_fargate(calls: Calls, paths: LocalPaths) -> None:
    container = start(paths)
    container.ask_to_stop()
    deadline = time.monotonic() + 10
    while not calls.of("stop") and time.monotonic() < deadline:
        time.sleep(0.05)
    container.ask_to_stop()
    container.clean_up(paths)
    [words] = calls.of("stop")
    assert after(words, "--time") == ["120"]
    assert len(calls.of("rm")) == 1


@pytest.mark.usefixtures("calls")
def test_end_for_want_of_memory_is_told_as_ecs_tells_it(paths: LocalPaths) -> None:
    container = start(paths)
    assert container.exit_code() == 137
    assert container.reason() == "OutOfMemoryError: Container killed due to memory usage"


@pytest.mark.usefixtures("calls")
def test_health_check_runs_inside(paths: LocalPaths) -> None:
    inside = start(paths).inside(["python", "-m", "runtime.health", "worker"])
    assert inside[:4] == ["docker", "--host", "unix:///engine.sock", "exec"]
    assert inside[-4:] == ["python", "-m", "runtime.health", "worker"]


@pytest.mark.usefixtures("calls")
def test_image_that_was_never_built_says_how(paths: LocalPaths) -> None:
    with pytest.raises(ImageError, match=r"is not built; build it with: \./updraft up"):
        start(paths, image="registry/assets:missing")


@pytest.mark.usefixtures("calls")
def test_engines_refusal_is_passed_on(paths: LocalPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSE", "invalid mount config")
    with pytest.raises(DockerError, match="invalid mount config"):
        start(paths)


def test_leftovers_of_a_killed_account_go(calls: Calls, paths: LocalPaths) -> None:
    DockerEngine(paths, Docker("unix:///engine.sock", paths.root)).open()
    [words] = calls.of("ps")
    assert f"label=updraft.platform={paths.root}" in words
    assert calls.of("rm")[0][:4] == ["rm", "--force", "--volumes", "abc"]


def test_container_that_is_gone_is_as_good_as_removed(calls: Calls, paths: LocalPaths) -> None:
    Docker("unix:///engine.sock", paths.root).remove_container("gone")
    [words] = calls.of("rm")
    assert words[:4] == ["rm", "--force", "--volumes", "gone"]


def test_no_docker_at_all_is_said(paths: LocalPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(paths.root))
    with pytest.raises(DockerError, match="docker ps"):
        Docker("unix:///engine.sock", paths.root).remove_all()


def test_choice_is_kept_until_it_is_changed(paths: LocalPaths) -> None:
    assert docker.chosen(paths) is None
    docker.choose(paths, "unix:///engine.sock")
    assert docker.chosen(paths) == Docker("unix:///engine.sock", paths.root)
    assert isinstance(engine_of(paths), DockerEngine)
    docker.choose(paths, None)
    assert docker.chosen(paths) is None


def test_two_platforms_never_share_a_name(tmp_path: Path) -> None:
    one, other = (Docker("unix:///engine.sock", tmp_path / name).name("ecs-1/main") for name in "ab")
    assert one != other
    assert "/" not in one


def test_images_of_an_assembly_by_their_hash(tmp_path: Path) -> None:
    asset = {"displayName": "airflow", "destinations": {"x": {"imageTag": "abc"}, "y": {"imageTag": "abc"}}}
    (tmp_path / "s.assets.json").write_text(json.dumps({"dockerImages": {"1": asset}}))
    assert docker.assembly_images(tmp_path) == {"abc": "airflow"}


def test_attached_client_is_recorded_and_forgotten(calls: Calls, paths: LocalPaths) -> None:
    container = start(paths)
    container.clean_up(paths)
    assert processes.all_pids(paths) == []
    assert calls.of("start")[0][:2] == ["start", "--attach"]
