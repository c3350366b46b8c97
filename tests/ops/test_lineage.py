"""Every end of the chain leads to all of it, and what nobody knows is told with what is allowed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
from botocore.exceptions import ClientError

from ops.airflow_api import AirflowApi
from ops.console import OperatorError
from ops.lineage import Chain, readable
from runtime.lineage import names
from runtime.lineage.tracking import Tracking, TrackingRefusedError

DAG, RUN, VERSION = "flights", "manual__2026-01-02T03:04:05+00:00", "0123456789abcdef"
PARENT, CHILD, TRIAL, STRANGER = (letter * 32 for letter in "abcd")
ARN = "arn:aws:sagemaker:us-east-1:000000000000:model-package/updraft-local-flights/3"
JOB = "updraft-local-train-1234567890"
CREATED = datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC)
JOB_ARN = f"arn:aws:sagemaker:us-east-1:000000000000:training-job/{JOB}"


def run_of(run_id: str, name: str, /, **tags: str) -> dict[str, Any]:
    return {
        "info": {"run_id": run_id, "experiment_id": "7", "start_time": 1, "run_name": name},
        "data": {
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "params": [{"key": "destination/x", "value": "s3://data/x"}],
            "metrics": [{"key": "duration_seconds", "value": 2.5}],
        },
    }


KEY = names.dag_run_key(DAG, RUN)
OF_RUN = {"dag_id": DAG, "run_id": RUN, names.DAG_RUN_KEY: KEY}
RUNS = {
    PARENT: run_of(PARENT, RUN, **OF_RUN, **{names.KEY: KEY}, model_package_arn=ARN),
    CHILD: run_of(
        CHILD, "train", **OF_RUN, **{names.KEY: "k"}, task_id="train", try_number="1", map_index="-1",
        state="success", operator="SageMakerJobOperator",
    ),
    TRIAL: run_of(TRIAL, "trial", **OF_RUN),
    STRANGER: run_of(STRANGER, "by hand"),
}  # fmt: skip


def absent(**asked: str) -> Any:
    [name] = asked.values()
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}|arn:.*", name):
        raise ClientError(
            {"Error": {"Code": "ValidationException", "Message": "1 validation error"}}, "Describe"
        )
    raise ClientError({"Error": {"Code": "ValidationException", "Message": "Could not find it"}}, "Describe")


class SageMaker:
    """One training, one model package."""

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:
        return {"TrainingJobArn": JOB_ARN} if TrainingJobName == JOB else absent(Name=TrainingJobName)

    describe_processing_job = describe_transform_job = describe_hyper_parameter_tuning_job = staticmethod(
        absent
    )

    def describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:
        if ModelPackageName != ARN:
            return dict(absent(Name=ModelPackageName))
        return {
            "ModelPackageGroupName": "updraft-local-flights", "ModelPackageVersion": 3,
            "ModelApprovalStatus": "Approved",
        }  # fmt: skip

    def get_paginator(self, operation: str) -> Any:
        def paginate(**asked: Any) -> list[dict[str, Any]]:
            if operation == "list_tags":
                tags = {"updraft:dag": DAG, "updraft:run": RUN, "updraft:task": "train"}
                return [{"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
            if operation == "list_model_packages":
                if asked["ModelPackageGroupName"] != "updraft-local-flights":
                    absent(**asked)
                return [{"ModelPackageSummaryList": [{"ModelPackageArn": ARN}]}]
            job = {"TrainingJobName": JOB, "TrainingJobArn": JOB_ARN, "TrainingJobStatus": "Completed"}
            is_of_the_time = asked["CreationTimeAfter"] <= CREATED <= asked["CreationTimeBefore"]
            summaries: dict[str, Any] = {
                f"{noun}JobSummaries": [] for noun in ("Processing", "Transform", "HyperParameterTuning")
            }
            return [{**summaries, "TrainingJobSummaries": [job] if is_of_the_time else []}]

        return SimpleNamespace(paginate=paginate)


def tracking() -> Any:
    made = create_autospec(Tracking, instance=True, spec_set=False)
    made.url = "http://127.0.0.1:5000"
    made.experiment_ids.return_value = ["7"]

    def run(run_id: str) -> dict[str, Any]:
        if run_id not in RUNS:
            raise TrackingRefusedError("RESOURCE_DOES_NOT_EXIST", "no such run")
        return RUNS[run_id]

    def search(_: list[str], wanted: str) -> Any:
        if KEY in wanted:
            return iter([RUNS[TRIAL], RUNS[CHILD], RUNS[PARENT]])
        return iter([RUNS[PARENT]] if ARN in wanted else [])

    def model_version(name: str, version: str) -> dict[str, Any]:
        if (name, version) != ("late", "1"):
            raise TrackingRefusedError("RESOURCE_DOES_NOT_EXIST", "no such model")
        return {"run_id": TRIAL}

    made.run.side_effect, made.search.side_effect = run, search
    made.model_version.side_effect = model_version
    made.model_versions.side_effect = lambda run_id: (
        [{"name": "late", "version": "1", "status": "READY"}] if run_id == TRIAL else []
    )
    return made


def airflow(**changes: Any) -> Any:
    run: dict[str, Any] = {
        "dag_id": DAG, "dag_run_id": RUN, "state": "success", "bundle_version": VERSION,
        "queued_at": "2026-01-02T03:04:05Z", "run_after": "2026-01-02T03:04:05Z",
        "start_date": "2026-01-02T03:04:06Z", "end_date": "2026-01-02T03:05:06Z",
    } | changes  # fmt: skip
    other = run | {"dag_id": "another"}
    made = create_autospec(AirflowApi, instance=True)
    made.find_runs.side_effect = lambda run_id=None, version=None: (
        [run] if version == VERSION else [other, run] if run_id == RUN else []
    )
    return made


def chain(tracked: bool = True, **changes: Any) -> Chain:
    return Chain(
        airflow=airflow(**changes),
        sagemaker=SageMaker(),
        tracking=tracking() if tracked else None,
        prefix="updraft-local",
    )


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (PARENT, "mlflow_run"), (CHILD, "mlflow_run"), (TRIAL, "mlflow_run"), (f"{DAG}/{RUN}", "dag_run"),
        (VERSION, "bundle_version"), (JOB, "job"), (JOB_ARN, "job"), (ARN, "model"),
        ("updraft-local-flights/3", "model"), ("late/1", "model"),
    ],
)  # fmt: skip
def test_every_end_leads_to_the_whole_chain(what: str, kind: str) -> None:
    result = chain().walk(what)
    assert (result["id"], result["kind"]) == (what, kind)
    [run] = result["dag_runs"]
    assert (run["dag_id"], run["run_id"], run["bundle_version"]) == (DAG, RUN, VERSION)
    assert run["mlflow_run_id"] == PARENT
    assert run["mlflow_url"] == f"http://127.0.0.1:5000/#/experiments/7/runs/{PARENT}"
    assert [(job["kind"], job["job"], job["task"]) for job in run["jobs"]] == [("training", JOB, "train")]
    assert [(model["registry"], model["name"], model["version"]) for model in run["models"]] == [
        ("mlflow", "late", "1"),
        ("sagemaker", "updraft-local-flights", "3"),
    ]
    [task] = run["tasks"]
    assert (task["task"], task["mlflow_run_id"], task["destinations"]) == ("train", CHILD, ["s3://data/x"])
    told = readable(result)
    assert all(word in told for word in (DAG, VERSION, PARENT, JOB, ARN, "late/1"))


@pytest.mark.parametrize(
    "what",
    [
        "nothing",
        "manual__at:1",
        "flights/nothing",
        "a_b/9",
        "flights/9",
        "f" * 32,
        "f" * 16,
        ARN[:-1] + "9",
        "arn:aws:s3:::bucket",
    ],
)
def test_unknown_id_is_told_with_what_is_allowed(what: str) -> None:
    with pytest.raises(OperatorError, match=r"nothing here has this id.*MLflow run id.*NAME/VERSION"):
        chain().walk(what)


def test_run_that_nobody_started_from_a_dag_says_so() -> None:
    with pytest.raises(OperatorError, match="not made by a DAG run"):
        chain().walk(STRANGER)


def test_name_in_both_registries_leads_to_the_dag_runs_of_both() -> None:
    made = chain()
    tracked: Any = made._tracking
    tracked.model_version.side_effect = lambda *_: {"run_id": STRANGER}
    RUNS[STRANGER]["data"]["tags"] += [{"key": "dag_id", "value": "another"}, {"key": "run_id", "value": RUN}]
    try:
        runs = made.walk("updraft-local-flights/3")["dag_runs"]
    finally:
        RUNS[STRANGER]["data"]["tags"].clear()
    assert [run["dag_id"] for run in runs] == [DAG, "another"]


def test_run_id_alone_shows_the_runs_of_every_dag() -> None:
    assert [run["dag_id"] for run in chain().walk(RUN)["dag_runs"]] == ["another", DAG]


def test_without_tracking_jobs_still_lead_to_their_dag_run_and_back() -> None:
    [run] = chain(tracked=False).walk(JOB)["dag_runs"]
    assert run["mlflow_run_id"] is None
    assert [job["job"] for job in run["jobs"]] == [JOB]
    assert "MLflow run      none" in readable({"dag_runs": [run]})


@pytest.mark.parametrize(
    "changes",
    [
        # A clear an hour later.
        {
            "queued_at": "2026-01-02T04:04:05Z",
            "start_date": "2026-01-02T04:04:06Z",
            "end_date": "2026-01-02T04:05:06Z",
        },
        # Started by hand before its time.
        {"run_after": "2026-01-02T05:00:00Z"},
        {"queued_at": None},
    ],
)
def test_jobs_of_a_run_are_found_whenever_it_was_queued(changes: dict[str, Any]) -> None:
    [run] = chain(**changes).walk(f"{DAG}/{RUN}")["dag_runs"]
    assert [job["job"] for job in run["jobs"]] == [JOB]
