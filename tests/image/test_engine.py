"""Engine `docker` of the local ECS against a real engine: a task's life from its start to its end."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.docker import Docker
from local.ecs.containers import Container, names_file
from local.ecs.docker_engine import DockerEngine
from local.paths import LocalPaths
from local.state_file import write_whole
from tests.image.engine import Image, docker

pytestmark = pytest.mark.image
SECONDS = 90
TASK_DEFINITION: dict[str, Any] = {
    "cpu": "512",
    "memory": "256",
    "volumes": [
        {"name": "tmp"},
        {"name": "home"},
        {"name": "releases", "efsVolumeConfiguration": {"fileSystemId": "fs-01234567"}},
    ],
}
MOUNTS = [
    {"sourceVolume": "tmp", "containerPath": "/tmp"},
    {"sourceVolume": "home", "containerPath": "/opt/airflow"},
    {"sourceVolume": "releases", "containerPath": "/mnt/releases", "readOnly": True},
]
LOOK = """
import json, os, pathlib, socket
def written(place):
    try:
        pathlib.Path(place, "probe").write_text("x")
    except OSError as error:
        return error.strerror
    return "yes"
cgroup = pathlib.Path("/sys/fs/cgroup")
first = lambda *names: next((cgroup.joinpath(n).read_text().split() for n in names if cgroup.joinpath(n).exists()), [])
with socket.create_server(("0.0.0.0", 0)) as listening:
    own = listening.getsockname()[0]
print(json.dumps({
    "user": os.getuid(), "first": pathlib.Path("/proc/1/comm").read_text().strip(),
    "written": {place: written(place) for place in ("/tmp", "/opt/airflow", "/mnt/releases", "/opt/updraft")},
    "release": pathlib.Path("/mnt/releases/note").read_text(), "secret": os.environ["DATABASE_PASSWORD"],
    "memory": first("memory.max", "memory/memory.limit_in_bytes"),
    "cpu": first("cpu.max") or first("cpu/cpu.cfs_quota_us") + first("cpu/cpu.cfs_period_us"),
    "own": own, "localhost": socket.gethostbyname("localhost"),
    "webserver": socket.gethostbyname("webserver.updraft-local.internal"),
}), flush=True)
"""


class Tasks:
    """Starts containers of one platform, whose state is in a folder of the test."""

    def __init__(self, paths: LocalPaths, image: str) -> None:
        self.docker = Docker(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), paths.root)
        self.engine = DockerEngine(paths, self.docker)
        self.paths = paths
        self._image = image
        self.task_id = uuid.uuid4().hex
        self.started: list[Container] = []

    def start(self, program: str, **changed: Any) -> Container:
        arn = f"arn:aws:ecs:us-east-1:000000000000:task/c/{self.task_id}"
        task = {"taskArn": arn, "taskDefinitionArn": "arn:task-definition/p-look:1", "overrides": {}}
        definition: dict[str, Any] = {
            "name": "main", "image": self._image, "entryPoint": ["python", "-c"], "command": [program],
            "readonlyRootFilesystem": True, "linuxParameters": {"initProcessEnabled": True}, "mountPoints": MOUNTS,
        }  # fmt: skip
        container = self.engine.start(
            task,
            TASK_DEFINITION,
            definition | changed,
            address="127.77.0.9",
            secrets={"DATABASE_PASSWORD": "very secret"},
            credentials={},
        )
        self.started.append(container)
        return container


@pytest.fixture
def tasks(airflow: Image, tmp_path: Path) -> Iterator[Tasks]:
    tag = f"test-{uuid.uuid4().hex[:12]}"
    docker("tag", airflow.tag, f"updraft:{tag}")
    paths = LocalPaths(tmp_path / "state")
    made = Tasks(paths, f"registry/assets:{tag}")
    made.engine.open()
    (paths.root / "efs" / "fs-01234567").mkdir(parents=True)
    (paths.root / "efs" / "fs-01234567" / "note").write_text("v1")
    write_whole(names_file(paths), {"webserver.updraft-local.internal": ["127.77.0.4"]}, mode=0o644)
    yield made
    for container in made.started:
        container.clean_up(paths)
    made.docker.remove_all()
    docker("rmi", f"updraft:{tag}")


def wait(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (answer := done()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


def test_container_is_what_its_task_definition_says(tasks: Tasks) -> None:
    container = tasks.start(LOOK)
    wait(lambda: container.exit_code() is not None)
    printed = container.log_file.read_text()
    assert container.exit_code() == 0, printed
    seen = json.loads(printed)
    assert seen["user"] == 50000
    assert seen["first"] in ("docker-init", "tini")
    assert seen["written"] == {
        "/tmp": "yes",
        "/opt/airflow": "yes",
        "/mnt/releases": "Read-only file system",
        "/opt/updraft": "Read-only file system",
    }
    assert (seen["release"], seen["secret"]) == ("v1", "very secret")
    assert seen["memory"] == [str(256 * 2**20)]
    assert int(seen["cpu"][0]) / int(seen["cpu"][1]) == 0.5
    assert seen["own"] == seen["localhost"] == "127.77.0.9"
    assert seen["webserver"] == "127.77.0.4"


def test_nothing_is_left_of_a_task(tasks: Tasks) -> None:
    container = tasks.start("print('done')")
    wait(lambda: container.exit_code() is not None)
    container.clean_up(tasks.paths)
    tasks.engine.remove(tasks.task_id)
    mine = ["--filter", f"label=updraft.platform={tasks.paths.root}", "--quiet"]
    assert docker("ps", "--all", *mine).stdout == docker("volume", "ls", *mine).stdout == ""


def test_healthy_then_stopped_by_sigterm_with_the_programs_own_exit_code(tasks: Tasks) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "pathlib.Path('/tmp/ready').touch()\n"
        "time.sleep(600)"
    )
    check = ["CMD", "python", "-c", "import pathlib, sys; sys.exit(not pathlib.Path('/tmp/ready').exists())"]
    health = {"command": check, "interval": 1, "timeout": 30, "retries": 20}
    container = tasks.start(program, healthCheck=health, stopTimeout=60)

    def healthy() -> bool:
        container.probe()
        return container.health == "HEALTHY"

    wait(healthy)
    container.ask_to_stop()
    wait(lambda: container.exit_code() is not None)
    assert (container.exit_code(), container.reason()) == (7, None)


def test_what_ignores_sigterm_is_killed_after_its_stop_timeout(tasks: Tasks) -> None:
    program = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\n"
        "time.sleep(600)"
    )
    container = tasks.start(program, stopTimeout=1)
    wait(lambda: "up" in container.log_file.read_text())
    container.ask_to_stop()
    wait(lambda: container.exit_code() is not None)
    assert container.exit_code() == 137


def test_want_of_memory_is_told(tasks: Tasks) -> None:
    container = tasks.start("block = bytearray(2**30)", memory=64)
    wait(lambda: container.exit_code() is not None)
    assert container.exit_code() == 137
    assert container.reason() == "OutOfMemoryError: Container killed due to memory usage"


def test_containers_of_a_killed_account_go_with_the_next_start(tasks: Tasks) -> None:
    container = tasks.start("import time; time.sleep(600)")
    tasks.engine.open()
    wait(lambda: container.exit_code() is not None)
    assert (
        docker("ps", "--all", "--quiet", "--filter", f"label=updraft.platform={tasks.paths.root}").stdout
        == ""
    )
