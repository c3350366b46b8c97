"""Runs a command inside a service's container: ECS Exec, on AWS and on the laptop."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from ops.console import OperatorError, say
from ops.sessions import find_plugin, plugin_call
from ops.target import Target

SHELL = ("/bin/sh",)
# ECS Exec starts a command beside the image's entry point, which makes Airflow's options out of the parts.
ENTRY_POINT = ("python", "-m", "runtime.entrypoint")
# The laptop's stand-in takes what the plugin takes; it needs nothing to be installed.
LOCAL_PLUGIN = [sys.executable, "-m", "local.ecs.session"]


def run(target: Target, service: str, command: Sequence[str]) -> int:
    """Run a command (a shell when empty) in the newest task of a service, on this terminal; returns the exit code.

    On AWS that is the plugin's exit code: ECS Exec doesn't tell the command's own. Raises OperatorError when the
    environment has this switched off, or nothing of that name runs.
    """
    if not target.config.execute_command:
        raise OperatorError(
            f"commands in containers are off in '{target.name}'. To allow them: execute_command = true in "
            f"environments/{target.name}.toml, then ./updraft deploy --environment {target.name}; "
            "tasks that run already have to be started anew"
        )
    ecs = target.client("ecs")
    cluster = target.output("airflow", "ClusterName")
    plugin = LOCAL_PLUGIN if target.is_local else find_plugin()
    task = _newest_task(ecs, target, cluster, service)
    container = _main_container(task, service)
    wanted = [*command] or [*SHELL]
    if container["name"] != "mlflow":
        wanted = [*ENTRY_POINT, *wanted]
    task_id = task["taskArn"].rpartition("/")[2]
    say(f"  {service}: task {task_id}, container {container['name']}")
    try:
        answer = ecs.execute_command(
            cluster=cluster,
            task=task["taskArn"],
            container=container["name"],
            command=shlex.join(wanted),
            interactive=True,
        )
    except ClientError as error:
        raise OperatorError(f"ECS does not run it: {error.response['Error']['Message']}") from error
    request = {"Target": f"ecs:{cluster}_{task_id}_{container['runtimeId']}"}
    argv, environment = plugin_call(plugin, target, answer["session"], request)
    return _on_this_terminal(argv, environment)


def _newest_task(ecs: Any, target: Target, cluster: str, service: str) -> dict[str, Any]:
    worker = service.removeprefix("worker-") in target.config.workers and service.startswith("worker-")
    of = {"family": f"{target.prefix}-{service}"} if worker else {"serviceName": service}
    try:
        arns = ecs.list_tasks(cluster=cluster, desiredStatus="RUNNING", **of)["taskArns"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ServiceNotFoundException":
            arns = []
        else:
            raise OperatorError(f"ECS does not list the tasks of {service}: {error}") from error
    described = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    running = [task for task in described if task["lastStatus"] == "RUNNING"]
    if not running:
        raise OperatorError(
            f"no task of '{service}' runs; see what does with: ./updraft status --environment {target.name}"
        )
    newest: dict[str, Any] = max(running, key=lambda task: task["startedAt"])
    return newest


def _main_container(task: dict[str, Any], service: str) -> dict[str, Any]:
    """The container named as the service where several share a task, else the task's one main container."""
    by_name: dict[str, dict[str, Any]] = {container["name"]: container for container in task["containers"]}
    for name in (service, "airflow", "mlflow"):
        if name in by_name:
            return by_name[name]
    raise OperatorError(f"the task of '{service}' has no container of that name, only {', '.join(by_name)}")


def _on_this_terminal(argv: list[str], environment: dict[str, str]) -> int:
    # Ctrl-C is for the command in the container. A handler, other than an ignored signal, isn't handed down to it.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(argv, env=environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
