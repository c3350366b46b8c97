"""ECS Exec: who may, in which task, and how the plugin is called."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ops import execute, sessions
from ops.console import OperatorError

# Shows how it was called, and ends as the command in the container would.
PLUGIN = """\
#!{python}
import json, os, sys
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    sys.exit(print("1.2.707.0"))
here = Path(__file__).parent
(here / "call").write_text(json.dumps([os.environ[sys.argv[1]], *sys.argv[2:]]))
sys.exit(3)
"""
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/updraft-dev"


def task(number: int, *containers: str) -> dict[str, Any]:
    return {
        "taskArn": f"arn:aws:ecs:us-east-1:123456789012:task/updraft-dev/task{number}",
        "clusterArn": CLUSTER,
        "lastStatus": "RUNNING",
        "startedAt": number,
        "containers": [{"name": name, "runtimeId": f"task{number}-{name}"} for name in containers],
    }


def account(*tasks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    session = {"sessionId": "s-1", "tokenValue": "token", "streamUrl": "wss://stream"}
    return {
        "ListTasks": lambda _: {"taskArns": [item["taskArn"] for item in tasks]},
        "DescribeTasks": lambda _: {"tasks": list(tasks)},
        "ExecuteCommand": lambda _: {"session": session},
    } | changes


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / sessions.PLUGIN
    program.write_text(PLUGIN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return tmp_path / "call"


def test_command_runs_in_the_newest_task_and_its_exit_code_comes_back(plugin: Path, target: Any) -> None:
    to = target(account(task(1, "airflow"), task(2, "airflow")), execute_command=True)
    assert execute.run(to, "scheduler", ["airflow", "dags", "list", "--columns", "dag id"]) == 3
    assert to.requests("ListTasks") == [
        {"cluster": "updraft-dev", "desiredStatus": "RUNNING", "serviceName": "scheduler"}
    ]
    [asked] = to.requests("ExecuteCommand")
    assert asked["task"].endswith("/task2")
    assert asked["container"] == "airflow"
    assert asked["interactive"] is True
    # Airflow's options are made by the entry point, which ECS Exec goes past.
    assert asked["command"] == "python -m runtime.entrypoint airflow dags list --columns 'dag id'"
    session, region, action, profile, request, endpoint = json.loads(plugin.read_text())
    assert json.loads(session) == {"sessionId": "s-1", "tokenValue": "token", "streamUrl": "wss://stream"}
    assert (region, action, profile) == ("us-east-1", "StartSession", "")
    assert json.loads(request) == {"Target": "ecs:updraft-dev_task2_task2-airflow"}
    assert endpoint == "https://ssm.us-east-1.amazonaws.com"


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("service", "containers", "listed", "container", "command"),
    [
        ("worker-default", ["airflow"], {"family": "updraft-dev-worker-default"}, "airflow", "python -m runtime.entrypoint /bin/sh"),
        ("mlflow", ["mlflow"], {"serviceName": "mlflow"}, "mlflow", "/bin/sh"),
        ("dag-processor", ["verifier", "dag-processor"], {"serviceName": "dag-processor"}, "dag-processor", "python -m runtime.entrypoint /bin/sh"),
    ],
)  # fmt: skip
def test_service_leads_to_its_task_and_container(
    target: Any, service: str, containers: list[str], listed: dict[str, str], container: str, command: str
) -> None:
    to = target(account(task(1, *containers)), execute_command=True)
    execute.run(to, service, [])
    assert listed.items() <= to.requests("ListTasks")[0].items()
    [asked] = to.requests("ExecuteCommand")
    assert (asked["container"], asked["command"]) == (container, command)


def test_environment_that_has_it_off_says_how_to_allow_it(target: Any) -> None:
    to = target(account(task(1, "airflow")), execute_command=False)
    with pytest.raises(
        OperatorError, match=r"off in 'dev'.*execute_command = true in environments/dev\.toml"
    ):
        execute.run(to, "scheduler", [])
    assert to.requests("ExecuteCommand") == []


@pytest.mark.usefixtures("plugin")
def test_service_without_a_task_is_told(target: Any) -> None:
    unknown = {"Error": {"Code": "ServiceNotFoundException", "Message": "Service not found."}}
    answers: tuple[dict[str, Any], ...] = ({"taskArns": []}, unknown)
    for answer in answers:
        to = target(account(ListTasks=lambda _, answer=answer: answer), execute_command=True)
        with pytest.raises(OperatorError, match="no task of 'scheduler' runs"):
            execute.run(to, "scheduler", [])


@pytest.mark.usefixtures("plugin")
def test_ecss_own_words_reach_the_user(target: Any) -> None:
    refused = {"Error": {"Code": "InvalidParameterException", "Message": "execute command was not enabled"}}
    to = target(account(task(1, "airflow"), ExecuteCommand=lambda _: refused), execute_command=True)
    with pytest.raises(OperatorError, match="ECS does not run it: execute command was not enabled"):
        execute.run(to, "scheduler", [])
