"""ECS Exec on the laptop: the API answers as AWS's does, and its session runs with what the container has."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from local.ecs.containers import Container
from local.ecs.service import EcsError, EcsService
from local.ecs.sessions import Sessions
from local.ecs.store import Store
from local.images import PathMap

ROOT = Path(__file__).resolve().parents[3]
ASK = {"cluster": "c", "container": "main", "interactive": True}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield running
    running.kill()
    running.communicate()


@pytest.fixture
def ecs(tmp_path: Path, process: subprocess.Popen[bytes]) -> EcsService:
    service = EcsService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")
    service.call("CreateCluster", {"clusterName": "c"})
    definition = {"name": "main", "image": "image"}
    service.call("RegisterTaskDefinition", {"family": "job", "containerDefinitions": [definition]})
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:/bin:/usr/bin", "COLOUR": "blue"}
    path_map = PathMap({"/opt/data": home})
    container = Container(
        definition, process, "ecs-main", tmp_path / "log", home, home, environment, path_map
    )
    sessions = Sessions(service, lambda _: [container], directory=tmp_path / "sessions")
    service.operations["ExecuteCommand"] = sessions.execute_command
    return service


def running_task(ecs: EcsService, *, enabled: bool = True) -> str:
    request = {"cluster": "c", "taskDefinition": "job", "enableExecuteCommand": enabled}
    arn = str(ecs.call("RunTask", request)["tasks"][0]["taskArn"])
    ecs.find_task("c", arn)["lastStatus"] = "RUNNING"
    return arn


def take_up(session: dict[str, str], *, by_variable: bool = True) -> subprocess.CompletedProcess[str]:
    response = json.dumps(session)
    variable = "AWS_SSM_START_SESSION_RESPONSE"
    return subprocess.run(
        [sys.executable, "-m", "local.ecs.session", variable if by_variable else response]
        + ["us-east-1", "StartSession", "", "{}", "http://127.0.0.1:4566"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | ({variable: response} if by_variable else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("by_variable", [True, False])
def test_command_has_the_containers_environment_folder_and_paths(
    ecs: EcsService, tmp_path: Path, by_variable: bool
) -> None:
    program = "import os,sys; print(os.environ['COLOUR'], os.getcwd(), *sys.argv[1:]); sys.exit(7)"
    command = f'python -c "{program}" /opt/data/x'
    answer = ecs.call("ExecuteCommand", ASK | {"task": running_task(ecs), "command": command})
    shape = (
        botocore.session.get_session().get_service_model("ecs").operation_model("ExecuteCommand").output_shape
    )
    assert not ParamValidator().validate(answer, shape).has_errors()
    ran = take_up(answer["session"], by_variable=by_variable)
    assert (ran.returncode, ran.stderr) == (7, "")
    assert ran.stdout.split() == ["blue", str(tmp_path / "home"), f"{tmp_path}/home/x"]


def test_session_is_for_its_owner_and_for_one_time(ecs: EcsService, tmp_path: Path) -> None:
    session = ecs.call("ExecuteCommand", ASK | {"task": running_task(ecs), "command": "true"})["session"]
    [file] = (tmp_path / "sessions").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    wrong = take_up(session | {"tokenValue": "guess"})
    assert (wrong.returncode, "wrong token" in wrong.stderr) == (1, True)
    assert take_up(session).returncode == 0
    again = take_up(session)
    assert (again.returncode, "its token was used" in again.stderr) == (1, True)


def test_session_that_nobody_took_up_is_removed_with_the_next(ecs: EcsService, tmp_path: Path) -> None:
    request = ASK | {"task": running_task(ecs), "command": "true"}
    ecs.call("ExecuteCommand", request)
    [left] = (tmp_path / "sessions").iterdir()
    os.utime(left, (0, 0))
    ecs.call("ExecuteCommand", request)
    assert left not in list((tmp_path / "sessions").iterdir())


def test_program_that_is_not_there_fails_as_in_a_shell(ecs: EcsService) -> None:
    request = ASK | {"task": running_task(ecs), "command": "no-such-program"}
    ran = take_up(ecs.call("ExecuteCommand", request)["session"])
    assert (ran.returncode, ran.stderr) == (127, "no-such-program: No such file or directory\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interactive": False}, "Interactive must be true"),
        ({"container": "other"}, "The container other is not one that runs"),
        ({"command": "sh -c '"}, "command: No closing quotation"),
        ({"command": " "}, "command: it is empty"),
        ({"task": "gone"}, "The referenced task was not found"),
    ],
)
def test_wrong_request_is_refused(ecs: EcsService, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EcsError, match=message) as refused:
        ecs.call("ExecuteCommand", ASK | {"task": running_task(ecs), "command": "true"} | changes)
    assert refused.value.code == "InvalidParameterException"


def test_task_that_was_started_without_it_takes_no_command(ecs: EcsService) -> None:
    request = ASK | {"task": running_task(ecs, enabled=False), "command": "true"}
    with pytest.raises(EcsError, match="execute command was not enabled when the task was run"):
        ecs.call("ExecuteCommand", request)


def test_container_that_has_ended_takes_no_command(ecs: EcsService, process: subprocess.Popen[bytes]) -> None:
    task = running_task(ecs)
    process.kill()
    process.wait()
    with pytest.raises(EcsError, match="is not one that runs in the task"):
        ecs.call("ExecuteCommand", ASK | {"task": task, "command": "true"})
