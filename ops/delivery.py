"""Makes a version of the DAG bundle live: builds or finds it, deploys it by CodeDeploy, and follows the deployment.

A deployment succeeds when the dag-processor serves every DAG of the version (runtime/hooks), so nothing here asks
Airflow, and all of it is the same on AWS and on the laptop.
"""

from __future__ import annotations

import getpass
import tempfile
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops import aws_errors, checking, deployments
from ops.console import OperatorError, say, step
from ops.target import Target
from runtime.parameters import is_absence
from runtime.release import Release
from runtime.release_check import VERSION

NO_RELEASE = "none"
WATCH_SECONDS = 0.3


def push(target: Target, dags: Path) -> dict[str, Any]:
    """Make the DAGs of a folder live; returns `version`, `deployment_id`, `dag_ids` and the `seconds` of each phase.

    Raises OperatorError when the folder is no bundle or the deployment doesn't succeed; whatever was live before then
    still is.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        with step("building the bundle"):
            release = checking.build(dags, Path(scratch))
        _upload(target, release)
    uploaded = round(time.monotonic() - started, 2)
    result = _deploy(target, release.version, "push")
    return result | {"seconds": {"build_and_upload": uploaded} | result["seconds"]}


def rollback(target: Target, version: str | None) -> dict[str, Any]:
    """Make an earlier version live again, by default the one that was live before; returns what `push` returns."""
    live = live_version(target)
    if version is None:
        # What the pointer once named may have failed its validation; what was deployed well has not.
        earlier = (row["version"] for row in deployments.succeeded(target))
        version = next((it for it in earlier if it != live), None)
        if version is None:
            raise OperatorError(f"no other version than {live} was live; ./updraft releases shows them")
    if version == live:
        raise OperatorError(f"{version} is live already")
    _require_bundle(target, version)
    return _deploy(target, version, "rollback")


def promote(target: Target, source: Target, version: str | None) -> dict[str, Any]:
    """Make a version of another environment live in this one, byte by byte the same bundle."""
    version = version or live_version(source)
    if version == NO_RELEASE:
        raise OperatorError(f"nothing is live in '{source.name}' yet")
    _require_bundle(source, version)
    started = time.monotonic()
    with step(f"copying {version} from {source.name}"):
        bundle = source.client("s3").get_object(
            Bucket=source.output("storage", "BundlesBucket"), Key=f"{version}.zip"
        )["Body"]
        target.client("s3").upload_fileobj(
            bundle, target.output("storage", "BundlesBucket"), f"{version}.zip"
        )
    copied = round(time.monotonic() - started, 2)
    result = _deploy(target, version, f"promotion from {source.name}")
    return result | {"seconds": {"copy": copied} | result["seconds"]}


def releases(target: Target) -> dict[str, Any]:
    """What was made live: `live`, and for each version its last deployment, newest first, with the runs still on it.

    `runs` is None where Airflow can't be reached.
    """
    live = live_version(target)
    rows: dict[str, dict[str, Any]] = {}
    for deployment in deployments.succeeded(target):
        rows.setdefault(deployment["version"], deployment | {"live": deployment["version"] == live})
    try:
        airflow = target.airflow()
        for version, row in rows.items():
            row["runs"] = airflow.unfinished_runs(version=version)
    except OperatorError as error:
        say(f"  the runs on each version are not known: {error}")
        for row in rows.values():
            row["runs"] = None
    return {"environment": target.name, "live": live, "releases": list(rows.values())}


def watch(target: Target, dags: Path) -> None:
    """Push at every change of the folder until interrupted; a push that fails is told, and the next change tried."""
    last = None
    say(f"watching {dags}; Ctrl-C ends it")
    while True:
        state = _state_of(dags)
        if state != last and state == _settled(dags, state):
            last = state
            try:
                result = push(target, dags)
                say(f"{result['version']} is live after {sum(result['seconds'].values()):.1f} s")
            except (OperatorError, *aws_errors.ERRORS) as error:
                say(f"updraft: {aws_errors.in_words(error)}")
        time.sleep(WATCH_SECONDS)


def live_version(target: Target) -> str:
    """What the pointer names; `none` before the first push."""
    name = target.output("delivery", "PointerParameter")
    try:
        return str(target.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    except (BotoCoreError, ClientError) as error:
        if is_absence(error):
            return NO_RELEASE
        raise OperatorError(f"the pointer {name} can't be read: {error}") from error


def _deploy(target: Target, version: str, kind: str) -> dict[str, Any]:
    started = time.monotonic()
    with step(f"deploying version {version}"):
        found = deployments.run(target, version, description=f"{kind} by {_who(target)}")
    return {
        "version": version,
        "deployment_id": found.identifier,
        "dag_ids": found.dag_ids,
        "seconds": {**found.event_seconds, "waiting": _rest(started, found.event_seconds)},
    }


def _rest(started: float, seconds: dict[str, float]) -> float:
    return round(max(0.0, time.monotonic() - started - sum(seconds.values())), 2)


def _who(target: Target) -> str:
    """Whoever AWS says we are; on the laptop, where everybody is the same, the user of this machine."""
    if target.is_local:
        return getpass.getuser()
    return str(target.client("sts").get_caller_identity()["Arn"])


def _upload(target: Target, release: Release) -> None:
    bucket = target.output("storage", "BundlesBucket")
    target.client("s3").upload_file(str(release.archive), bucket, f"{release.version}.zip")


def _require_bundle(target: Target, version: str) -> None:
    if not VERSION.fullmatch(version):
        raise OperatorError(f"{version!r} is no version: 16 hex digits, as ./updraft releases shows them")
    try:
        target.client("s3").head_object(
            Bucket=target.output("storage", "BundlesBucket"), Key=f"{version}.zip"
        )
    except ClientError as error:
        raise OperatorError(
            f"'{target.name}' has no bundle {version} ({error}); ./updraft releases shows what there is"
        ) from error


def _state_of(dags: Path) -> dict[str, tuple[int, int]]:
    state = {}
    for file in sorted(dags.rglob("*")):
        try:
            if file.is_file() and "__pycache__" not in file.parts:
                state[str(file)] = (file.stat().st_mtime_ns, file.stat().st_size)
        except FileNotFoundError:
            continue
    return state


def _settled(dags: Path, state: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The folder's state a moment later: an editor may be in the middle of writing several files."""
    if state:
        time.sleep(WATCH_SECONDS)
    return _state_of(dags)
