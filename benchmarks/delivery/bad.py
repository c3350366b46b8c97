"""Bad bundles, by every way in: each has to be refused with a reason, leave nothing behind and the old one live."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.account_faults import faults, no_faults
from benchmarks.delivery import bad_archives, bad_folders
from benchmarks.delivery.platform import CommandError, Platform, tell, wait_until
from benchmarks.delivery.trees import small_dags
from ops.deployments import ENDED
from runtime.release import build_release

QUIET_SECONDS = 120
DAGS = 2
# The agent has its own hooks in the last three.
AGENT_DIES_IN = ("DownloadBundle", "Install", "AfterInstall", "ApplicationStart", "ValidateService")


@dataclass(frozen=True)
class Case:
    """One bad bundle; `attempt` raises what the user is told, or returns when it went live."""

    name: str
    attempt: Callable[[Platform, Path], None]


def bad(platform: Platform) -> dict[str, Any]:
    """Try every bad bundle; `bad_bundles_tried`, `bad_bundles_live` (0 is right), and a row for each."""
    with tempfile.TemporaryDirectory() as scratch:
        small_dags(Path(scratch), f"good-{time.time():.0f}", dags=DAGS, changed=0)
        live = platform.updraft("push", "--dags", scratch)["version"]
    rows = [_try(platform, case, live) for case in cases()]
    both = _two_at_once(platform)
    return {
        "bad_bundles_tried": len(rows),
        "bad_bundles_live": sum(row["live"] for row in rows),
        "bad_bundles_without_reason": sum(not row["reason"] for row in rows),
        "bad_bundles_that_left_something": sum(bool(row["left"]) for row in rows),
        "two_pushes_at_once": both,
        "bad_bundles": rows,
    }


def cases() -> list[Case]:
    """Every bad bundle."""
    return [
        *(Case(name, _pushed(make)) for name, make in bad_folders.CASES.items()),
        *(Case(name, _deployed(make)) for name, make in bad_archives.CASES.items()),
        *(Case(f"agent killed in {event}", _agent_dies(event)) for event in AGENT_DIES_IN),
    ]


def _try(platform: Platform, case: Case, live: str) -> dict[str, Any]:
    before = set(platform.releases_folder.iterdir())
    started = time.monotonic()
    reason = ""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            case.attempt(platform, Path(scratch))
        except CommandError as error:
            reason = str(error)
    seconds = time.monotonic() - started
    _wait_until_quiet(platform)
    wait_until(
        lambda: platform.live == live, seconds=QUIET_SECONDS, what="the old version"
    ) if not reason else None
    left = sorted(path.name for path in set(platform.releases_folder.iterdir()) - before)
    # A version that was tested and accepted before its agent died is no left-over: it is kept for the next push.
    left = [name for name in left if name.startswith(".") or not case.name.startswith("agent killed")]
    row = {
        "name": case.name,
        "live": platform.live != live or platform.served_versions() != {live},
        "reason": reason[:300],
        "left": left,
        "seconds": round(seconds, 1),
    }
    tell(f"{case.name}: {'LIVE' if row['live'] else 'refused'} {left or ''} {reason[:120]!r}")
    return row


def _pushed(make: Callable[[Path], None]) -> Callable[[Platform, Path], None]:
    def attempt(platform: Platform, scratch: Path) -> None:
        folder = scratch / "dags"
        small_dags(folder, f"bad-{time.time()}", dags=DAGS, changed=0)
        make(folder)
        platform.updraft("push", "--dags", str(folder))

    return attempt


def _deployed(make: Callable[[Path, Path], Path]) -> Callable[[Platform, Path], None]:
    """What `aws deploy create-deployment` does with an archive that no push of ours made."""

    def attempt(platform: Platform, scratch: Path) -> None:
        small_dags(scratch / "dags", f"bad-{time.time()}", dags=DAGS, changed=0)
        good = build_release(scratch / "dags", [], scratch / "built")
        archive = make(good.archive, scratch)
        bucket = platform.target.output("storage", "BundlesBucket")
        key = f"bad/{archive.name}"
        if archive.exists():
            platform.target.client("s3").upload_file(str(archive), bucket, key)
        _deploy(platform, bucket, key)

    return attempt


def _deploy(platform: Platform, bucket: str, key: str) -> None:
    client = platform.target.client("codedeploy")
    identifier = client.create_deployment(
        applicationName=platform.target.output("delivery", "ApplicationName"),
        deploymentGroupName=platform.target.output("delivery", "DeploymentGroupName"),
        revision={"revisionType": "S3", "s3Location": {"bucket": bucket, "key": key, "bundleType": "zip"}},
    )["deploymentId"]

    def info() -> dict[str, Any]:
        return dict(client.get_deployment(deploymentId=identifier)["deploymentInfo"])

    wait_until(lambda: info()["status"] in ENDED, seconds=600, what=identifier)
    if info()["status"] != "Succeeded":
        [instance] = client.list_deployment_targets(deploymentId=identifier)["targetIds"]
        target = client.get_deployment_target(deploymentId=identifier, targetId=instance)
        events = target["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
        told = [it.get("diagnostics", {}) for it in events if it["status"] == "Failed"]
        raise CommandError(
            "; ".join(f"{it.get('message', '')} {it.get('logTail', '')}".strip() for it in told)
        )


def _agent_dies(event: str) -> Callable[[Platform, Path], None]:
    def attempt(platform: Platform, scratch: Path) -> None:
        small_dags(scratch / "dags", f"killed-{time.time()}", dags=DAGS, changed=0)
        with faults(agent_dies_in=event), ThreadPoolExecutor() as pool:
            push = pool.submit(platform.updraft, "push", "--dags", str(scratch / "dags"))
            _wait_for_event(platform, event)
            # The next deployment, CodeDeploy's own rollback, finds an agent that was started again.
            time.sleep(2)
            no_faults()
            push.result()

    return attempt


def _wait_for_event(platform: Platform, event: str) -> None:
    client = platform.target.client("codedeploy")

    def is_in_it() -> bool:
        active = client.list_deployments(
            applicationName=platform.target.output("delivery", "ApplicationName"),
            deploymentGroupName=platform.target.output("delivery", "DeploymentGroupName"),
            includeOnlyStatuses=["InProgress"],
        )["deployments"]
        for identifier in active:
            for instance in client.list_deployment_targets(deploymentId=identifier)["targetIds"]:
                target = client.get_deployment_target(deploymentId=identifier, targetId=instance)
                events = target["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
                if any(it["lifecycleEventName"] == event and it["status"] == "InProgress" for it in events):
                    return True
        return False

    wait_until(is_in_it, seconds=60, what=event)


def _wait_until_quiet(platform: Platform) -> None:
    """No deployment goes on: an automatic rollback has ended."""
    client = platform.target.client("codedeploy")
    wait_until(
        lambda: (
            not client.list_deployments(
                applicationName=platform.target.output("delivery", "ApplicationName"),
                deploymentGroupName=platform.target.output("delivery", "DeploymentGroupName"),
                includeOnlyStatuses=["Created", "Queued", "InProgress"],
            )["deployments"]
        ),
        seconds=QUIET_SECONDS,
        what="the end of every deployment",
    )


def _two_at_once(platform: Platform) -> dict[str, Any]:
    """Both succeed, one after the other, and the one that ended last is live, whole."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        pushes = []
        for name in ("one", "two"):
            small_dags(Path(scratch) / name, f"{name}-{time.time()}", dags=DAGS, changed=0)
            pushes.append(pool.submit(platform.updraft, "push", "--dags", str(Path(scratch) / name)))
        versions = {push.result()["version"] for push in pushes}
    newest = platform.updraft("releases")["releases"][0]["version"]
    return {
        "succeeded": len(versions),
        "live_is_the_last": platform.live == newest and platform.served_versions() == {newest},
    }
