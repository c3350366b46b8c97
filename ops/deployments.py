"""CodeDeploy deployments of the DAG bundle: starts one, tells each lifecycle event, notices a lost agent, lists them."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.aws_errors import in_words
from ops.console import OperatorError, say
from ops.target import Target

POLL_SECONDS = 0.25
# A lifecycle event that takes longer gives signs of life (runtime/hooks); without one for so long the agent is lost.
LOST_SECONDS = 60
ASK_FOR_LIFE_SECONDS = 10
# Another deployment of the group, such as the rollback of one that failed, is waited for.
BUSY_SECONDS = 180
ROLLBACK_SECONDS = 120
# A deployment needs nothing of this machine: an AWS that gives no answer for so long is told, and it goes on.
UNANSWERED_SECONDS = 60
NOT_STARTED = ("Created", "Queued")
ENDED = ("Succeeded", "Failed", "Stopped")
NO_TARGETS_YET = ("DeploymentNotStartedException", "DeploymentTargetDoesNotExistException")
LISTED = 50
MOST_AT_ONCE = 25


@dataclass(frozen=True)
class Finished:
    """A deployment that succeeded: the seconds of each lifecycle event that took any, and the DAGs that are served."""

    identifier: str
    event_seconds: dict[str, float] = field(default_factory=dict)
    dag_ids: list[str] = field(default_factory=list)


def run(target: Target, version: str, *, description: str) -> Finished:
    """Deploy the bundle of a version and return when it has succeeded.

    Raises OperatorError with what the failed hook said, after CodeDeploy has gone back to the last version that
    succeeded; when the agent is lost, and then stops the deployment; and when AWS gives no answer for a minute.
    """
    client = target.client("codedeploy")
    identifier = _create(target, client, version, description)
    say(f"  deployment {identifier}")
    watcher = _Watcher(target, identifier)
    unanswered_since: float | None = None
    while True:
        try:
            info = client.get_deployment(deploymentId=identifier)["deploymentInfo"]
            if info["status"] not in NOT_STARTED:
                watcher.look()
            if info["status"] not in ENDED:
                _stop_if_lost(target, client, identifier, watcher)
            unanswered_since = None
        except (BotoCoreError, ClientError) as error:
            now = time.monotonic()
            if unanswered_since is None:
                unanswered_since = now
                say(f"  no answer about the deployment, asking again: {error}")
            if now - unanswered_since > UNANSWERED_SECONDS:
                raise OperatorError(
                    f"deployment {identifier} goes on, but there is no answer about it: {in_words(error)}\n"
                    f"Look what became of it with: ./updraft releases --environment {target.name}"
                ) from error
            watcher.excuse_silence()
            time.sleep(POLL_SECONDS)
            continue
        if info["status"] == "Succeeded":
            return Finished(identifier, watcher.event_seconds(), watcher.dag_ids())
        if info["status"] in ENDED:
            reason = watcher.failures() or info.get("errorInformation", {}).get("message", "no reason given")
            raise OperatorError(
                f"deployment {identifier} {info['status'].lower()}: {reason}\n{_gone_back(client, info)}"
            )
        time.sleep(POLL_SECONDS)


def succeeded(target: Target) -> list[dict[str, Any]]:
    """The newest deployments that succeeded, newest first: `version`, `time`, `who`, `deployment_id`, `kind`."""
    client = target.client("codedeploy")
    group = _group(target)
    pages = client.get_paginator("list_deployments").paginate(
        **group, includeOnlyStatuses=["Succeeded"], PaginationConfig={"MaxItems": LISTED}
    )
    identifiers = [identifier for page in pages for identifier in page["deployments"]]
    found: list[dict[str, Any]] = []
    for start in range(0, len(identifiers), MOST_AT_ONCE):
        answer = client.batch_get_deployments(deploymentIds=identifiers[start : start + MOST_AT_ONCE])
        found += [_row(info) for info in answer["deploymentsInfo"]]
    return sorted(found, key=lambda row: row["time"], reverse=True)


class _Watcher:
    """Follows the lifecycle events of one deployment on its instances."""

    def __init__(self, target: Target, identifier: str) -> None:
        self._client = target.client("codedeploy")
        self._ssm = target.client("ssm")
        self._progress = f"{target.config.ssm_prefix}/bundle/progress"
        self._sign_of_life = ""
        self._asked_at = float("-inf")
        self._identifier = identifier
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._changed_at = time.monotonic()

    def look(self) -> None:
        """Ask once, and say each event that has begun or ended since."""
        before = self._states()
        asked = {"deploymentId": self._identifier}
        try:
            for instance in self._client.list_deployment_targets(**asked)["targetIds"]:
                found = self._client.get_deployment_target(**asked, targetId=instance)["deploymentTarget"]
                self._events[instance] = found["instanceTarget"].get("lifecycleEvents", [])
        except ClientError as error:
            # CodeDeploy tells a deployment's new state before it has its targets.
            if error.response["Error"]["Code"] not in NO_TARGETS_YET:
                raise
        now = self._states()
        if now != before:
            self._changed_at = time.monotonic()
        for (instance, name), state in now.items():
            if state in ("Succeeded", "Failed") and before.get((instance, name)) != state:
                say(f"  {name}: {state.lower()}")

    def _states(self) -> dict[tuple[str, str], str]:
        return {
            (instance, event["lifecycleEventName"]): event["status"]
            for instance, events in self._events.items()
            for event in events
        }

    def current(self) -> str:
        """The lifecycle event that is going on."""
        running = [name for (_, name), state in self._states().items() if state == "InProgress"]
        return running[0] if running else "the time before the first lifecycle event"

    def excuse_silence(self) -> None:
        """Whoever gets no answer can't tell whether the agent lives: its silence counts from now on."""
        self._changed_at = time.monotonic()

    def silent_seconds(self) -> float:
        """Since when nothing has changed, and no hook has given a sign of life."""
        now = time.monotonic()
        if now > max(self._changed_at, self._asked_at) + ASK_FOR_LIFE_SECONDS:
            self._asked_at = now
            if self._lives():
                self._changed_at = now
        return now - self._changed_at

    def _lives(self) -> bool:
        """Whether a hook of this deployment has told something new since the last look."""
        try:
            told = str(self._ssm.get_parameter(Name=self._progress)["Parameter"]["Value"])
        except (BotoCoreError, ClientError) as error:
            say(f"  {self._progress} can't be read: {error}")
            return False
        is_new = told.startswith(f"{self._identifier} ") and told != self._sign_of_life
        self._sign_of_life = told
        return is_new

    def failures(self) -> str:
        """What the failed events say."""
        texts = []
        for events in self._events.values():
            for event in (event for event in events if event["status"] == "Failed"):
                told = event.get("diagnostics", {})
                lines = [line.removeprefix("[stderr]") for line in told.get("logTail", "").splitlines()
                         if line.startswith("[stderr]")]  # fmt: skip
                said = "\n".join(lines) or told.get("message", "no reason given")
                texts.append(f"{event['lifecycleEventName']}: {said}")
        return "; ".join(texts)

    def event_seconds(self) -> dict[str, float]:
        """How long each event took that took any time; of several instances the slowest."""
        seconds: dict[str, float] = {}
        for events in self._events.values():
            for event in (event for event in events if "startTime" in event and "endTime" in event):
                taken = (event["endTime"] - event["startTime"]).total_seconds()
                name = event["lifecycleEventName"]
                seconds[name] = max(seconds.get(name, 0.0), round(taken, 2))
        return {name: taken for name, taken in seconds.items() if taken > 0}

    def dag_ids(self) -> list[str]:
        """The DAGs that the validation found served, as it says; empty where CodeDeploy keeps no log of a success."""
        tails = [
            event.get("diagnostics", {}).get("logTail", "")
            for events in self._events.values()
            for event in events
            if event["lifecycleEventName"] == "ValidateService"
        ]
        found = re.search(r"is served: ([^;\n]+);", "\n".join(tails))
        return found[1].split(", ") if found else []


def _create(target: Target, client: Any, version: str, description: str) -> str:
    bucket = target.output("storage", "BundlesBucket")
    location = {"bucket": bucket, "key": f"{version}.zip", "bundleType": "zip"}
    deadline = time.monotonic() + BUSY_SECONDS
    told = False
    while True:
        try:
            answer = client.create_deployment(
                **_group(target),
                revision={"revisionType": "S3", "s3Location": location},
                description=description,
            )
            return str(answer["deploymentId"])
        except client.exceptions.DeploymentLimitExceededException as error:
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"another deployment is still going on: {error}. {_how_to_stop(target)}"
                ) from error
            if not told:
                say("  waiting for another deployment to end")
                told = True
        except ClientError as error:
            raise OperatorError(f"the deployment can't be started: {in_words(error)}") from error
        time.sleep(POLL_SECONDS)


def _stop_if_lost(target: Target, client: Any, identifier: str, watcher: _Watcher) -> None:
    """Stop a deployment whose agent gives no sign of life, have it rolled back, and raise OperatorError; nothing when
    it has ended meanwhile."""
    if (silent := watcher.silent_seconds()) <= LOST_SECONDS:
        return
    try:
        client.stop_deployment(deploymentId=identifier, autoRollbackEnabled=True)
    except ClientError as error:
        if error.response["Error"]["Code"] != "DeploymentAlreadyCompletedException":
            raise
        return
    raise OperatorError(
        f"deployment {identifier} was stopped: no sign of life for {silent:.0f} s in {watcher.current()}. "
        "Is the CodeDeploy agent on the bastion running? CodeDeploy's rollback waits for the same agent, up to an hour, "
        f"and no other deployment begins before. {_how_to_stop(target)}"
    )


def _how_to_stop(target: Target) -> str:
    """For the deployment that holds the group: CodeDeploy has one of a group at a time."""
    group = _group(target)
    region = target.config.region
    return (
        f"See it with: aws deploy list-deployments --region {region} --application-name {group['applicationName']} "
        f"--deployment-group-name {group['deploymentGroupName']} --include-only-statuses Created Queued InProgress; "
        f"end it with: aws deploy stop-deployment --region {region} --no-auto-rollback-enabled --deployment-id ID"
    )


def _gone_back(client: Any, info: dict[str, Any]) -> str:
    """Wait for CodeDeploy's automatic rollback, and tell how it ended."""
    identifier = info.get("rollbackInfo", {}).get("rollbackDeploymentId")
    if not identifier:
        return "What was live before still is."
    deadline = time.monotonic() + ROLLBACK_SECONDS
    while time.monotonic() < deadline:
        # Without an answer the rollback's end stays unknown, and why the deployment failed is told all the same.
        with contextlib.suppress(BotoCoreError, ClientError):
            back = client.get_deployment(deploymentId=identifier)["deploymentInfo"]
            if back["status"] in ENDED:
                return f"CodeDeploy's rollback {identifier} to {_version(back)}: {back['status'].lower()}."
        time.sleep(POLL_SECONDS)
    return f"CodeDeploy's rollback {identifier} goes on."


def _group(target: Target) -> dict[str, str]:
    return {
        "applicationName": target.output("delivery", "ApplicationName"),
        "deploymentGroupName": target.output("delivery", "DeploymentGroupName"),
    }


def _row(info: dict[str, Any]) -> dict[str, Any]:
    kind, _, who = info.get("description", "").partition(" by ")
    if info["creator"] != "user":
        kind, who = "automatic rollback", "CodeDeploy"
    return {
        "version": _version(info),
        "time": info["completeTime"].isoformat(timespec="seconds"),
        "who": who or "-",
        "kind": kind if who else "deployment",
        "deployment_id": info["deploymentId"],
    }


def _version(info: dict[str, Any]) -> str:
    return str(info["revision"]["s3Location"]["key"]).removesuffix(".zip")
