"""The chain MLflow run, DAG run, bundle version, SageMaker jobs, model versions, from any of its ends.

A DAG run is its middle: whatever is asked for says which DAG run it is of, and the DAG run leads to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from ops.airflow_api import AirflowApi
from ops.console import OperatorError, table
from ops.target import Target
from runtime.lineage import names
from runtime.lineage.tracking import Tracking, TrackingRefusedError, TrackingUnavailableError
from runtime.sagemaker.jobs import Job
from runtime.sagemaker.kinds import KINDS, is_absence
from runtime.settings import LONGEST_NAME, LONGEST_NAME_DEFAULT

MLFLOW_URL = "http://127.0.0.1:5000"
MLFLOW_RUN = re.compile(r"^[0-9a-f]{32}$")
BUNDLE_VERSION = re.compile(r"^[0-9a-f]{16}$")
ARN = re.compile(r"^arn:[\w-]+:sagemaker:[\w-]*:\d*:([\w-]+)/(.+)$")
JOB_ARNS = ("training-job", "processing-job", "transform-job", "hyper-parameter-tuning-job")
# What SageMaker takes as a name; it refuses the question about any other.
SAGEMAKER_NAME = re.compile(r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
# A DAG run's jobs are looked for so long before its start and after its end.
SLACK = timedelta(minutes=1)
KNOWN = (
    "an MLflow run id (32 hex digits), a DAG run (DAG/RUN_ID), a bundle version (16 hex digits), a SageMaker job's "
    "name, a model package's ARN, or a model's NAME/VERSION"
)
TASK_COLUMNS = ["task", "try", "state", "seconds", "operator", "mlflow_run_id"]
JOB_COLUMNS = ["kind", "job", "state", "task"]


class Chain:
    """`walk` with the clients of one environment; `tracking` is None where the environment has none."""

    def __init__(
        self, *, airflow: AirflowApi, sagemaker: Any, tracking: Tracking | None, prefix: str
    ) -> None:
        self._airflow = airflow
        self._sagemaker = sagemaker
        self._tracking = tracking
        self._prefix = prefix

    def walk(self, what: str) -> dict[str, Any]:
        """Every DAG run that the id leads to, with all that belongs to it; raises OperatorError for an unknown id."""
        for kind, runs in self._candidates(what):
            if runs:
                return {"id": what, "kind": kind, "dag_runs": [self._dag_run(run) for run in runs]}
        raise OperatorError(f"{what}: nothing here has this id. It has to be {KNOWN}")

    # From an id to DAG runs

    def _candidates(self, what: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """What the id may be, the likeliest first."""
        if arn := ARN.match(what):
            if arn[1] == "model-package":
                yield "model", self._runs_of_package(what)
            elif arn[1] in JOB_ARNS:
                yield "job", self._runs_of_job(arn[2])
            return
        if MLFLOW_RUN.match(what):
            yield "mlflow_run", self._runs_of_mlflow_run(what)
        if BUNDLE_VERSION.match(what):
            yield "bundle_version", self._airflow.find_runs(version=what)
        first, slash, rest = what.partition("/")
        if slash:
            yield "dag_run", self._one_run(first, rest)
            yield "model", self._runs_of_model(first, rest)
        else:
            yield "job", self._runs_of_job(what)
            yield "dag_run", self._airflow.find_runs(run_id=what)

    def _one_run(self, dag_id: str | None, run_id: str | None) -> list[dict[str, Any]]:
        if not dag_id or not run_id:
            return []
        return [run for run in self._airflow.find_runs(run_id=run_id) if run["dag_id"] == dag_id]

    def _runs_of_mlflow_run(self, run_id: str) -> list[dict[str, Any]]:
        if self._tracking is None:
            return []
        try:
            tags = _tags(self._tracking.run(run_id))
        except TrackingRefusedError:
            return []
        if "dag_id" not in tags:
            raise OperatorError(
                f"{run_id}: this MLflow run was not made by a DAG run, so nothing leads on from it"
            )
        return self._one_run(tags["dag_id"], tags.get("run_id"))

    def _runs_of_job(self, name: str) -> list[dict[str, Any]]:
        if not SAGEMAKER_NAME.match(name):
            return []
        for kind in KINDS:
            if len(name) > LONGEST_NAME.get(kind, LONGEST_NAME_DEFAULT):
                continue
            if (job := Job(self._sagemaker, kind, name).describe()) is not None:
                tags = self._job_tags(job[KINDS[kind].arn_key])
                return self._one_run(tags.get("updraft:dag"), tags.get("updraft:run"))
        return []

    def _runs_of_package(self, arn: str) -> list[dict[str, Any]]:
        package = self._package(arn)
        if package is None:
            return []
        given = package.get("CustomerMetadataProperties", {})
        found = self._one_run(given.get("dag_id"), given.get("run_id"))
        if found or self._tracking is None:
            return found
        wanted = f"tags.model_package_arn = '{arn}'"
        every = self._tracking.search(self._tracking.experiment_ids(), wanted)
        tags = next((_tags(run) for run in every), {})
        return self._one_run(tags.get("dag_id"), tags.get("run_id"))

    def _runs_of_model(self, name: str, version: str) -> list[dict[str, Any]]:
        """A version of a SageMaker model package group, or of a model registered with MLflow."""
        if not version.isdigit():
            return []
        # Both registries may have a model of this name, with versions of their own.
        arn = next((arn for arn in self._package_arns(name) if arn.endswith(f"/{version}")), None)
        found = self._runs_of_package(arn) if arn else []
        if self._tracking is not None:
            try:
                tags = _tags(self._tracking.run(self._tracking.model_version(name, version)["run_id"]))
            except TrackingRefusedError:
                tags = {}
            more = self._one_run(tags.get("dag_id"), tags.get("run_id"))
            found = found + [run for run in more if run not in found]
        return found

    # From a DAG run to the rest

    def _dag_run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
        recorded = self._recorded(dag_id, run_id)
        own = names.dag_run_key(dag_id, run_id)
        parent = next((each for each in recorded if _tags(each).get(names.KEY) == own), None)
        return {
            "dag_id": dag_id,
            "run_id": run_id,
            "state": run["state"],
            "started_at": run["start_date"],
            "ended_at": run["end_date"],
            "bundle_version": run["bundle_version"],
            "mlflow_run_id": parent and parent["info"]["run_id"],
            "mlflow_url": parent and self._url(parent),
            "tasks": sorted(
                (_task(each) for each in recorded if _tags(each).get(names.KEY) not in (None, own)),
                key=lambda task: (task["started_ms"], task["task"]),
            ),
            "jobs": list(self._jobs(run)),
            "models": self._models(recorded),
        }

    def _recorded(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The DAG run's, its tasks', and those that tasks made with MLflow's own client in whatever experiment."""
        if self._tracking is None:
            return []
        wanted = f"tags.{names.DAG_RUN_KEY} = '{names.dag_run_key(dag_id, run_id)}'"
        return list(self._tracking.search(self._tracking.experiment_ids(), wanted))

    def _jobs(self, run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """By the tags on the jobs themselves, among those of the DAG run's time."""
        # A clear sets `queued_at` anew, and the jobs of before are the run's, too.
        moments = [run["run_after"], run["queued_at"] or run["run_after"]]
        begin = min(map(datetime.fromisoformat, moments)) - SLACK
        end = datetime.fromisoformat(run["end_date"]) if run["end_date"] else datetime.now(UTC)
        for kind, described in KINDS.items():
            pages = self._sagemaker.get_paginator(described.list).paginate(
                NameContains=self._prefix, CreationTimeAfter=begin, CreationTimeBefore=end + SLACK
            )
            for page in pages:
                for job in page[described.summaries]:
                    tags = self._job_tags(job[described.arn_key])
                    if (tags.get("updraft:dag"), tags.get("updraft:run")) == (
                        _as_tag(run["dag_id"]),
                        _as_tag(run["dag_run_id"]),
                    ):
                        yield {
                            "kind": kind,
                            "job": job[described.name_key],
                            "arn": job[described.arn_key],
                            "state": job[described.status_key],
                            "task": tags.get("updraft:task"),
                        }

    def _models(self, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for run in recorded:
            tags = _tags(run)
            arn = tags.get("model_package_arn")
            if arn and arn not in found and (package := self._package(arn)) is not None:
                found[arn] = {
                    "registry": "sagemaker",
                    "name": package.get("ModelPackageGroupName"),
                    "version": str(package.get("ModelPackageVersion", arn.rsplit("/", 1)[1])),
                    "arn": arn,
                    "status": package["ModelApprovalStatus"],
                }
            # Lineage registers nothing itself.
            if self._tracking is not None and names.KEY not in tags:
                for version in self._tracking.model_versions(run["info"]["run_id"]):
                    label = f"{version['name']}/{version['version']}"
                    found[label] = {
                        "registry": "mlflow",
                        "name": version["name"],
                        "version": str(version["version"]),
                        "arn": None,
                        "status": version.get("status"),
                    }
        return list(found.values())

    def _job_tags(self, arn: str) -> dict[str, str]:
        pages = self._sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}

    def _package(self, arn: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._sagemaker.describe_model_package(ModelPackageName=arn)
        except ClientError as error:
            if is_absence(error):
                return None
            raise
        return found

    def _package_arns(self, group: str) -> list[str]:
        if not SAGEMAKER_NAME.match(group):
            return []
        pages = self._sagemaker.get_paginator("list_model_packages")
        try:
            return [
                str(item["ModelPackageArn"])
                for page in pages.paginate(ModelPackageGroupName=group)
                for item in page["ModelPackageSummaryList"]
            ]
        except ClientError as error:
            if is_absence(error):
                return []
            raise

    def _url(self, run: Mapping[str, Any]) -> str:
        assert self._tracking is not None
        info = run["info"]
        return f"{self._tracking.url}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}"


def read(target: Target, what: str) -> dict[str, Any]:
    """The chain of an id in an environment."""
    tracking = None
    if target.config.tracking.enabled:
        target.require_not_the_laptops(MLFLOW_URL)
        login = target.credentials()["mlflow"]
        tracking = Tracking(MLFLOW_URL, username=login["username"], password=login["password"])
    chain = Chain(
        airflow=target.airflow(),
        sagemaker=target.client("sagemaker"),
        tracking=tracking,
        prefix=target.prefix,
    )
    try:
        return chain.walk(what)
    except TrackingUnavailableError as error:
        hint = "" if target.is_local else "; open the way to it with: ./updraft tunnel webserver mlflow"
        raise OperatorError(f"MLflow does not answer: {error}{hint}") from error


def readable(result: Mapping[str, Any]) -> str:
    """Each DAG run with what belongs to it."""
    return "\n\n".join(_readable(run) for run in result["dag_runs"])


def _readable(run: Mapping[str, Any]) -> str:
    lines = [
        f"DAG run         {run['dag_id']}/{run['run_id']}  {run['state']}",
        f"bundle version  {run['bundle_version'] or 'none'}",
        f"MLflow run      {run['mlflow_run_id'] or 'none'}  {run['mlflow_url'] or ''}".rstrip(),
    ]
    for model in run["models"]:
        where = model["arn"] or "in MLflow's registry"
        lines.append(f"model version   {model['name']}/{model['version']}  {model['status']}  {where}")
    if run["jobs"]:
        lines += ["", table(run["jobs"], JOB_COLUMNS)]
    if run["tasks"]:
        lines += ["", table(run["tasks"], TASK_COLUMNS)]
    return "\n".join(lines)


def _task(run: Mapping[str, Any]) -> dict[str, Any]:
    tags, info = _tags(run), run["info"]
    params = {item["key"]: item["value"] for item in run["data"].get("params", [])}
    metrics = {item["key"]: item["value"] for item in run["data"].get("metrics", [])}
    mapped = tags.get("map_index", "-1")
    return {
        "task": tags["task_id"] + (f"[{mapped}]" if mapped != "-1" else ""),
        "try": int(tags["try_number"]),
        "state": tags.get("state"),
        "seconds": metrics.get("duration_seconds"),
        "operator": tags.get("operator"),
        "started_ms": int(info["start_time"]),
        "sources": [uri for name, uri in sorted(params.items()) if name.startswith("source/")],
        "destinations": [uri for name, uri in sorted(params.items()) if name.startswith("destination/")],
        "mlflow_run_id": info["run_id"],
    }


def _tags(run: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def _as_tag(value: str) -> str:
    """As runtime.settings.tags writes it on a job."""
    return re.sub(r"[^\w\s+=.:/@-]", "_", value)[:256]
