"""Pushes a DAG bundle: build, upload, CodeDeploy, and wait until the dag-processor serves it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from ops.bootstrap import ROOT
from ops.console import OperatorError, say, step
from ops.target import Target
from runtime.release import Release, ReleaseError, build_release

DEPLOYMENT_SECONDS = 120
SERVED_SECONDS = 120


def push(target: Target, dags: Path) -> dict[str, Any]:
    """Make a version live and return `version`, `deployment_id`, `dag_ids` and the seconds of each phase.

    Raises OperatorError when the folder is no bundle, the deployment fails or the version isn't served in time;
    whatever was live before then still is.
    """
    airflow = target.airflow()
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        with step("building the bundle"):
            release = _build(dags, Path(scratch))
        bucket = target.output("storage", "BundlesBucket")
        key = f"{release.version}.zip"
        target.client("s3").upload_file(str(release.archive), bucket, key)
        uploaded = time.monotonic()
    with step(f"deploying version {release.version}"):
        deployment_id = _deploy(target, bucket, key)
    deployed = time.monotonic()
    with step("waiting until it is served"):
        dag_ids = _wait_until_served(airflow, release.version)
    return {
        "version": release.version,
        "deployment_id": deployment_id,
        "dag_ids": dag_ids,
        "seconds": {
            "build_and_upload": round(uploaded - started, 2),
            "deployment": round(deployed - uploaded, 2),
            "served": round(time.monotonic() - deployed, 2),
        },
    }


def _build(dags: Path, output: Path) -> Release:
    if not dags.is_dir():
        raise OperatorError(f"--dags {dags}: no such folder")
    try:
        return build_release(dags, [ROOT / "ml"], output)
    except ReleaseError as error:
        raise OperatorError(f"{dags} can't be pushed: {error}") from error


def _deploy(target: Target, bucket: str, key: str) -> str:
    client = target.client("codedeploy")
    deployment_id: str = client.create_deployment(
        applicationName=target.output("delivery", "ApplicationName"),
        deploymentGroupName=target.output("delivery", "DeploymentGroupName"),
        revision={"revisionType": "S3", "s3Location": {"bucket": bucket, "key": key, "bundleType": "zip"}},
    )["deploymentId"]
    told: set[str] = set()
    deadline = time.monotonic() + DEPLOYMENT_SECONDS
    while True:
        info = client.get_deployment(deploymentId=deployment_id)["deploymentInfo"]
        failures = _tell_events(client, deployment_id, told)
        if info["status"] == "Succeeded":
            return deployment_id
        if info["status"] in ("Failed", "Stopped"):
            reason = "; ".join(failures) or info.get("errorInformation", {}).get("message", "no reason given")
            raise OperatorError(f"deployment {deployment_id} {info['status'].lower()}: {reason}")
        if time.monotonic() > deadline:
            client.stop_deployment(deploymentId=deployment_id, autoRollbackEnabled=True)
            raise OperatorError(
                f"deployment {deployment_id} was still {info['status']} after {DEPLOYMENT_SECONDS} s and was stopped: "
                "is the CodeDeploy agent on the bastion running?"
            )
        time.sleep(0.3)


def _tell_events(client: Any, deployment_id: str, told: set[str]) -> list[str]:
    """Say each lifecycle event that has ended since the last look; return what the failed ones say."""
    failures = []
    for target_id in client.list_deployment_targets(deploymentId=deployment_id)["targetIds"]:
        found = client.get_deployment_target(deploymentId=deployment_id, targetId=target_id)
        for event in found["deploymentTarget"]["instanceTarget"].get("lifecycleEvents", []):
            name, state = event["lifecycleEventName"], event["status"]
            if state == "Failed":
                diagnostics = event.get("diagnostics", {})
                failures.append(
                    f"{name}: {diagnostics.get('message', '')} {diagnostics.get('logTail', '')}".strip()
                )
            if state in ("Succeeded", "Failed") and name not in told:
                told.add(name)
                say(f"  {name}: {state.lower()}")
    return failures


def _wait_until_served(airflow: Any, version: str) -> list[str]:
    deadline = time.monotonic() + SERVED_SECONDS
    while True:
        dags = airflow.dags()
        if dags and all(dag["bundle_version"] == version for dag in dags):
            return sorted(dag["dag_id"] for dag in dags)
        if time.monotonic() > deadline:
            errors = "; ".join(
                f"{error['filename']}: {error['stack_trace'][-300:]}" for error in airflow.import_errors()
            )
            raise OperatorError(
                f"version {version} is deployed but not served after {SERVED_SECONDS} s. "
                + (f"Import errors: {errors}" if errors else "Look at: ./updraft logs dag-processor")
            )
        time.sleep(0.3)
