"""Asks an environment to sleep or to wake, and waits until it does; the function in the account takes the steps."""

from __future__ import annotations

import json
import time
from typing import Any

from botocore.exceptions import ClientError

from ops import laptop
from ops.console import OperatorError, say, step
from ops.target import Target

AWAKE = "awake"
POLL_SECONDS = 5
# RDS takes up to ten minutes to start, a service a few more.
WAKE_SECONDS = 30 * 60
# A training may live for hours; whoever waits longer than this asks again.
SLEEP_SECONDS = 6 * 3600
HEALTHY_SECONDS = 600


def ask(target: Target, command: str, *, wait: bool) -> dict[str, Any]:
    """Ask for `sleep` or `wake`; returns `state`, `waits_for`, `seconds`.

    Raises OperatorError when the function fails or it takes too long; what was asked for goes on by itself.
    """
    started = time.monotonic()
    answer = _invoke(target, {"command": command})
    if wait:
        with step("falling asleep" if command == "sleep" else "waking up"):
            limit = SLEEP_SECONDS if command == "sleep" else WAKE_SECONDS
            answer = _wait(target, answer, command, started + limit)
            if command == "wake":
                laptop.wait_until_healthy(target, timeout_seconds=HEALTHY_SECONDS)
    return {
        "environment": target.name,
        "state": answer["state"],
        "waits_for": answer["waits_for"],
        "seconds": round(time.monotonic() - started, 1),
    }


def ensure_awake(target: Target) -> None:
    """Wake the environment when it sleeps, is falling asleep, or was asked to: what changes it needs the database.

    An environment that was deployed before there was sleep is left as it is.
    """
    function = target.outputs.get("scaling", {}).get("SleepFunctionName")
    if function is None:
        return
    name = f"{target.config.ssm_prefix}/sleep"
    values = target.client("ssm").get_parameters(Names=[f"{name}/state", f"{name}/wanted"])["Parameters"]
    if any(parameter["Value"] != AWAKE for parameter in values):
        ask(target, "wake", wait=True)


def ensure_awake_if_deployed(target: Target) -> None:
    """The same for an environment that may not exist yet."""
    # Another object, for this one would remember the outputs from before the deployment.
    fresh = Target(target.config, target.profile)
    try:
        fresh.client("cloudformation").describe_stacks(StackName=f"{target.prefix}-scaling")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":  # there is no such stack
            return
        raise OperatorError(f"CloudFormation does not answer: {error}") from error
    ensure_awake(fresh)


def _wait(target: Target, answer: dict[str, Any], command: str, deadline: float) -> dict[str, Any]:
    told = ""
    while not answer["done"]:
        if answer["wants"] != ("asleep" if command == "sleep" else AWAKE):
            raise OperatorError(f"somebody else asked meanwhile: it is to be {answer['wants']}")
        if answer["waits_for"] != told:
            told = answer["waits_for"]
            say(f"  {told}")
        if time.monotonic() > deadline:
            raise OperatorError(
                f"not there yet, it waits: {told}. It goes on by itself; look again with the same command"
            )
        time.sleep(POLL_SECONDS)
        answer = _invoke(target, {})
    return answer


def _invoke(target: Target, event: dict[str, str]) -> dict[str, Any]:
    name = target.output("scaling", "SleepFunctionName")
    try:
        answer = target.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    except ClientError as error:
        raise OperatorError(f"the function {name} can't be invoked: {error}") from error
    document: dict[str, Any] = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise OperatorError(
            f"sleep and wake failed: {document.get('errorMessage', document)}. It tries again every minute"
        )
    return document
