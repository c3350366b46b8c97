"""Builds the application's image around a model, on CodeBuild."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowException

POLL_SECONDS = 3
TAG_CHARACTERS = 16
log = logging.getLogger(__name__)


def image_tag(model_uri: str, source: str) -> str:
    """The tag of the image of this model and this application."""
    return hashlib.sha256(f"{model_uri} {source}".encode()).hexdigest()[:TAG_CHARACTERS]


def build(settings: Mapping[str, str], *, model_uri: str, token: str) -> str:
    """Build the image unless it is there, and return its URI.

    `token` is the attempt's own. Raises AirflowException with what CodeBuild says; a build that this call leaves
    behind is told to stop.
    """
    tag = image_tag(model_uri, settings["source"])
    uri = f"{settings['repository_uri']}:{tag}"
    if _exists(settings["repository"], tag):
        log.info("%s has been built before", uri)
        return uri
    client = boto3.client("codebuild")
    started = client.start_build(
        projectName=settings["project"],
        idempotencyToken=token,
        environmentVariablesOverride=[
            {"name": "MODEL_URI", "value": model_uri, "type": "PLAINTEXT"},
            {"name": "IMAGE_TAG", "value": tag, "type": "PLAINTEXT"},
        ],
    )["build"]
    log.info("build %s", started["id"])
    ended: Mapping[str, Any] | None = None
    try:
        ended = _wait(client, started["id"])
    finally:
        if ended is None:
            client.stop_build(id=started["id"])
    if ended["buildStatus"] != "SUCCEEDED":
        raise AirflowException(f"build {ended['id']} ended {ended['buildStatus']}: {_reason(ended)}")
    return uri


def _wait(client: Any, build_id: str) -> Mapping[str, Any]:
    phase = None
    while True:
        [found] = client.batch_get_builds(ids=[build_id])["builds"]
        if found.get("currentPhase") != phase:
            phase = found.get("currentPhase")
            log.info("build %s: %s", build_id, phase)
        if found["buildStatus"] != "IN_PROGRESS":
            return dict(found)
        time.sleep(POLL_SECONDS)


def _exists(repository: str, tag: str) -> bool:
    found = boto3.client("ecr").batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])
    return bool(found["images"])


def _reason(build: Mapping[str, Any]) -> str:
    """What the failed phases say, and where the log is."""
    said = [
        f"{phase['phaseType']}: {context.get('message', '')}"
        for phase in build.get("phases", [])
        if phase.get("phaseStatus") not in (None, "SUCCEEDED")
        for context in phase.get("contexts", [])
    ]
    logs = build.get("logs", {})
    return f"{'; '.join(said) or 'no reason given'} (log: {logs.get('groupName')} {logs.get('streamName')})"
