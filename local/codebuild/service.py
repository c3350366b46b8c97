"""The CodeBuild API (JSON 1.1) for builds from S3: requests are held against botocore's model.

A setting that would be taken and then ignored is refused instead.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from local.account.json_api import ApiError, answer
from local.account.resources.shapes import InvalidPropertiesError, to_api
from local.codebuild.store import Record, Store, public

TIMEOUT_MINUTES, QUEUED_MINUTES = 60, 480
# https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html
TOKEN_SECONDS = 300
HONOURED = {
    "source": {"type", "location", "buildspec", "insecureSsl"},
    "artifacts": {"type", "location", "path", "name", "namespaceType", "packaging", "encryptionDisabled"},
    "environment": {
        "type", "image", "computeType", "environmentVariables", "privilegedMode", "imagePullCredentialsType",
    },
    "logsConfig": {"cloudWatchLogs"},
}  # fmt: skip
PROJECT = {
    "name", "description", "source", "artifacts", "environment", "serviceRole", "timeoutInMinutes",
    "queuedTimeoutInMinutes", "logsConfig", "tags", "encryptionKey", "cache", "sourceVersion",
}  # fmt: skip
START = {
    "projectName", "idempotencyToken", "environmentVariablesOverride", "timeoutInMinutesOverride",
    "buildspecOverride", "sourceLocationOverride", "sourceTypeOverride",
}  # fmt: skip


class CodeBuildError(ApiError):
    """An error of this service."""


class CodeBuildService:
    """Operations that read and change the store; the agent does what the store says."""

    def __init__(self, store: Store, *, account_id: str, region: str) -> None:
        self._store = store
        self._arn = f"arn:aws:codebuild:{region}:{account_id}"
        self._operations: dict[str, Callable[[Record], Record]] = {
            "CreateProject": self.create_project,
            "UpdateProject": self.update_project,
            "DeleteProject": self.delete_project,
            "BatchGetProjects": self.batch_get_projects,
            "ListProjects": lambda _request: {"projects": sorted(self._store.projects)},
            "StartBuild": self.start_build,
            "StopBuild": self.stop_build,
            "BatchGetBuilds": self.batch_get_builds,
            "ListBuilds": lambda request: self._list(request, None),
            "ListBuildsForProject": lambda request: self._list(request, request["projectName"]),
        }

    async def handle(
        self, _method: str, _path: str, headers: dict[str, str], body: bytes, _query: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        return answer(self.call, headers, body)

    def call(self, operation: str, request: Record) -> Record:
        """Run one operation; raises CodeBuildError as AWS would answer."""
        if operation not in self._operations:
            raise CodeBuildError(
                "UnknownOperationException", f"{operation} is not available in the local account"
            )
        try:
            checked = to_api("codebuild", operation, request)
        except InvalidPropertiesError as error:
            raise CodeBuildError("InvalidInputException", str(error)) from error
        with self._store.lock:
            found = self._operations[operation](checked)
            self._store.changed()
            self._store.save()
            return json.loads(json.dumps(found))  # type: ignore[no-any-return]

    # Projects

    def create_project(self, request: Record) -> Record:
        name = request["name"]
        if name in self._store.projects:
            raise CodeBuildError("ResourceAlreadyExistsException", f"Project already exists: {name}")
        _refuse(_project_mistakes(request))
        now = time.time()
        self._store.projects[name] = {
            "timeoutInMinutes": TIMEOUT_MINUTES,
            "queuedTimeoutInMinutes": QUEUED_MINUTES,
            **request,
            "arn": f"{self._arn}:project/{name}",
            "created": now,
            "lastModified": now,
            "_builds": 0,
        }
        return {"project": public(self._store.projects[name])}

    def update_project(self, request: Record) -> Record:
        project = self._project(request["name"])
        _refuse(_project_mistakes(request))
        project |= request | {"lastModified": time.time()}
        return {"project": public(project)}

    def delete_project(self, request: Record) -> Record:
        # It is no error that there is none: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_DeleteProject.html
        self._store.projects.pop(request["name"], None)
        return {}

    def batch_get_projects(self, request: Record) -> Record:
        names = request["names"]
        found = [public(self._store.projects[name]) for name in names if name in self._store.projects]
        return {
            "projects": found,
            "projectsNotFound": [name for name in names if name not in self._store.projects],
        }

    # Builds

    def start_build(self, request: Record) -> Record:
        """Record a build as queued, for the agent to run."""
        project = self._project(request["projectName"])
        _refuse(f"{name} is not available in the local account" for name in sorted(set(request) - START))
        token = request.get("idempotencyToken")
        known = self._store.builds.get(self._store.tokens.get(f"{project['name']}/{token}", ""))
        if token and known and time.time() - known["startTime"] < TOKEN_SECONDS:
            return {"build": public(known)}
        project["_builds"] += 1
        number, identifier = project["_builds"], str(uuid.uuid4())
        build_id = f"{project['name']}:{identifier}"
        now = time.time()
        logs = project.get("logsConfig", {}).get("cloudWatchLogs", {})
        source = dict(project["source"])
        for name in ("type", "location"):
            source[name] = request.get(f"source{name.capitalize()}Override", source.get(name))
        if "buildspecOverride" in request:
            source["buildspec"] = request["buildspecOverride"]
        environment = dict(project["environment"])
        environment["environmentVariables"] = _merged(
            environment.get("environmentVariables", []), request.get("environmentVariablesOverride", [])
        )
        self._store.builds[build_id] = {
            "id": build_id,
            "arn": f"{self._arn}:build/{build_id}",
            "buildNumber": number,
            "projectName": project["name"],
            "startTime": now,
            "currentPhase": "QUEUED",
            "buildStatus": "IN_PROGRESS",
            "buildComplete": False,
            "phases": [{"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED", "startTime": now, "endTime": now,
                        "durationInSeconds": 0}],
            "source": source,
            "artifacts": {},
            "environment": environment,
            "serviceRole": project["serviceRole"],
            "timeoutInMinutes": request.get("timeoutInMinutesOverride", project["timeoutInMinutes"]),
            "queuedTimeoutInMinutes": project["queuedTimeoutInMinutes"],
            "initiator": "local",
            "logs": {
                "groupName": logs.get("groupName", f"/aws/codebuild/{project['name']}"),
                "streamName": "/".join(filter(None, [logs.get("streamName"), identifier])),
                "cloudWatchLogs": {"status": logs.get("status", "ENABLED")},
            },
            "_artifacts": project["artifacts"],
        }  # fmt: skip
        if token:
            self._store.tokens[f"{project['name']}/{token}"] = build_id
        return {"build": public(self._store.builds[build_id])}

    def stop_build(self, request: Record) -> Record:
        build = self._store.builds.get(request["id"])
        if build is None:
            raise CodeBuildError("ResourceNotFoundException", f"Build not found: {request['id']}")
        if not build["buildComplete"]:
            build["_stop"] = True
        return {"build": public(build)}

    def batch_get_builds(self, request: Record) -> Record:
        ids = request["ids"]
        return {
            "builds": [public(self._store.builds[each]) for each in ids if each in self._store.builds],
            "buildsNotFound": [each for each in ids if each not in self._store.builds],
        }

    def _list(self, request: Record, project: str | None) -> Record:
        if project is not None:
            self._project(project)
        found = [
            each for each, build in self._store.builds.items() if project in (None, build["projectName"])
        ]
        return {"ids": found if request.get("sortOrder") == "ASCENDING" else found[::-1]}

    def _project(self, name: str) -> Record:
        if name not in self._store.projects:
            raise CodeBuildError("ResourceNotFoundException", f"Project cannot be found: {name}")
        return self._store.projects[name]


def _merged(declared: list[Record], given: list[Record]) -> list[Record]:
    """Variables by name; those that come with the build win."""
    return list({item["name"]: item for item in [*declared, *given]}.values())


def _project_mistakes(request: Record) -> Iterator[str]:
    for name in sorted(set(request) - PROJECT):
        yield f"{name} is not available in the local account; leave it out"
    for section, honoured in HONOURED.items():
        for name in sorted(set(request.get(section, {})) - honoured):
            yield f"{section}.{name} is not available in the local account; leave it out"
    if (kind := request.get("source", {}).get("type", "S3")) != "S3":
        yield f"source.type {kind} is not available in the local account; it has S3"
    if (kind := request.get("artifacts", {}).get("type", "NO_ARTIFACTS")) not in ("NO_ARTIFACTS", "S3"):
        yield f"artifacts.type {kind} is not available in the local account; it has NO_ARTIFACTS, S3"
    if request.get("cache", {}).get("type", "NO_CACHE") != "NO_CACHE":
        yield "cache.type is not available in the local account; it has NO_CACHE"


def _refuse(mistakes: Iterator[str]) -> None:
    found = list(mistakes)
    if found:
        raise CodeBuildError("InvalidInputException", "; ".join(found))
