"""The pet detection on the running platform: a picture is answered, and no failure takes that away."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests

from ops.airflow_api import AirflowApi
from ops.target import target_of
from tests.end_to_end.platform import client, updraft
from tests.pipelines.notifications import failures_queue
from tests.pipelines.runs import Run, run_to_end

DAG = "pet_detection"
CLUSTER, SERVICE = "updraft-local", "pets"
# Small enough to be quick where the model itself doesn't matter.
QUICK = {"pictures": 900, "epochs": 2, "threshold": 0.5}
ORDER = [
    "data_engineering.fetch", "data_engineering.transform", "ml_engineering.train", "ml_engineering.validate",
    "ml_engineering.accept", "ml_engineering.register", "build", "deploy", "summary",
]  # fmt: skip
# A health that is asked for and never given.
UNHEALTHY = ('JSONResponse({"status": "ok"', 'JSONResponse({"status": "ok", "broken": 1 / 0')


@pytest.fixture(scope="module")
def run(airflow: AirflowApi) -> Callable[..., Run]:
    """Runs the DAG to its end, with `conf` and what is done `meanwhile`."""
    return partial(run_to_end, airflow, DAG)


@pytest.fixture(scope="module")
def deployed(run: Callable[..., Run]) -> Run:
    """A run with everything as it comes: its model serves in all further tests."""
    return run({})


@pytest.fixture(scope="module")
def told(airflow: AirflowApi) -> Iterator[Callable[[str], list[dict[str, str]]]]:
    """What the topic of failed runs says of a run, by an SQS queue that is subscribed to it."""
    assert airflow
    with failures_queue("pets-failures") as of_run:
        yield of_run


def serving() -> dict[str, Any]:
    """The service of the application."""
    [found] = client("ecs").describe_services(cluster=CLUSTER, services=[SERVICE])["services"]
    result: dict[str, Any] = found
    return result


def url() -> str:
    """The address of a task that serves."""
    ecs = client("ecs")
    arns = ecs.list_tasks(cluster=CLUSTER, serviceName=SERVICE)["taskArns"]
    [task] = ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]
    [address] = [
        detail["value"]
        for detail in task["attachments"][0]["details"]
        if detail["name"] == "privateIPv4Address"
    ]
    return f"http://{address}:8000"


def data_bucket() -> str:
    return target_of("local").output("storage", "DataBucket")


def report_of(run: Run) -> dict[str, Any]:
    prefix = f"pets/{DAG}/{run.run_id.replace(':', '-').replace('+', '-')}"
    body = client("s3").get_object(Bucket=data_bucket(), Key=f"{prefix}/evaluation/evaluation.json")["Body"]
    report: dict[str, Any] = json.loads(body.read()) | {"prefix": prefix}
    return report


def ask(run: Run) -> requests.Response:
    """Upload a picture that the run held out."""
    report = report_of(run)
    key = f"{report['prefix']}/raw/images/{report['example']['name']}.jpg"
    picture = client("s3").get_object(Bucket=data_bucket(), Key=key)["Body"].read()
    return requests.post(f"{url()}/predict", files={"picture": ("a.jpg", picture, "image/jpeg")}, timeout=30)


def stopped_at(run: Run) -> str:
    """The first task that did not succeed; all after it did not run, and the clean-up did."""
    first = next(name for name in ORDER if run.tasks[name] != "success")
    after = ORDER[ORDER.index(first) + 1 :]
    assert run.tasks[first] == "failed"
    assert {run.tasks[name] for name in after} == {"upstream_failed"}
    assert run.tasks["clean_up"] == "success"
    return first


def assert_failed_safely(
    failed: Run, at: str, before: Run, told: Callable[[str], list[dict[str, str]]]
) -> dict[str, str]:
    """It stopped there, cleaned up, told of it, and the earlier model still answers."""
    assert failed.state == "failed"
    assert stopped_at(failed) == at
    [message] = told(failed.run_id)
    assert at in message["Message"]
    assert "http" in message["Message"]
    for kind in ("training", "processing"):
        jobs = getattr(client("sagemaker"), f"list_{kind}_jobs")(StatusEquals="InProgress")
        assert jobs[f"{kind.capitalize()}JobSummaries"] == []
    ecs = client("ecs")
    tasks = ecs.list_tasks(cluster=CLUSTER, family=f"{CLUSTER}-{SERVICE}")["taskArns"]
    assert len(tasks) == 1, "a candidate is left"
    assert ask(before).json()["label"] == report_of(before)["example"]["label"]
    return message


def test_deployed_model_beats_the_baseline_and_answers_a_picture(deployed: Run, airflow: AirflowApi) -> None:
    assert deployed.state == "success", deployed.tasks
    summary = airflow.xcom(DAG, deployed.run_id, "summary")
    assert summary["value"] >= 0.9
    assert summary["baseline"] <= 0.65
    package = client("sagemaker").describe_model_package(ModelPackageName=summary["model_package_arn"])
    assert package["CustomerMetadataProperties"]["model_uri"] == summary["uri"]
    answer = ask(deployed)
    assert answer.status_code == 200
    assert answer.json()["label"] == report_of(deployed)["example"]["label"]
    assert answer.json()["probability"] > 0.5
    job = client("sagemaker").describe_training_job(TrainingJobName=summary["training_job_name"])
    assert job["EnableManagedSpotTraining"] is True
    assert job["StoppingCondition"]["MaxWaitTimeInSeconds"] == 3600 + 1800
    left = client("s3").list_objects_v2(
        Bucket=data_bucket(), Prefix=f"{report_of(deployed)['prefix']}/checkpoints"
    )
    assert left["KeyCount"] == 0


def test_application_refuses_what_is_no_picture(deployed: Run) -> None:
    assert deployed.state == "success"
    assert requests.get(f"{url()}/health", timeout=10).json()["status"] == "ok"
    for kind, content, status in (
        ("image/jpeg", b"no picture", 422),
        ("image/gif", b"GIF89a", 415),
        ("image/jpeg", b"x" * 6 * 2**20, 413),
    ):
        answer = requests.post(f"{url()}/predict", files={"picture": ("a", content, kind)}, timeout=30)
        assert answer.status_code == status
        assert answer.json()["error"]


def test_image_was_built_by_codebuild_and_lies_in_the_repository(deployed: Run) -> None:
    assert deployed.state == "success"
    image = client("ecs").describe_task_definition(taskDefinition=serving()["taskDefinition"])[
        "taskDefinition"
    ]["containerDefinitions"][0]["image"]
    repository, _, tag = image.partition("/")[2].rpartition(":")
    found = client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    # The same content again has its earlier tags beside this one.
    assert tag in found["imageDetails"][0]["imageTags"]
    codebuild = client("codebuild")
    settings = json.loads(client("ssm").get_parameter(Name="/updraft/local/pets")["Parameter"]["Value"])
    assert repository == settings["build"]["repository"]
    ids = codebuild.list_builds_for_project(projectName=settings["build"]["project"])["ids"]
    builds = codebuild.batch_get_builds(ids=ids)["builds"]
    assert "SUCCEEDED" in [build["buildStatus"] for build in builds]
    phases = {phase["phaseType"]: phase.get("phaseStatus") for phase in builds[0]["phases"]}
    assert phases["PRE_BUILD"] == phases["BUILD"] == phases["POST_BUILD"] == "SUCCEEDED"


def test_bad_data_stops_at_the_transformation(
    deployed: Run, run: Callable[..., Run], told: Callable[[str], list[dict[str, str]]]
) -> None:
    lines = [f"Tabby_{number} 1 {1 + number % 2} 1" for number in range(300)]
    client("s3").put_object(
        Bucket=data_bucket(), Key="no-pictures/annotations/list.txt", Body="\n".join(lines).encode()
    )
    failed = run({"source": f"s3://{data_bucket()}/no-pictures/"})
    assert_failed_safely(failed, "data_engineering.transform", deployed, told)


def test_failing_training_stops_the_run(
    deployed: Run, run: Callable[..., Run], told: Callable[[str], list[dict[str, str]]]
) -> None:
    sagemaker = client("sagemaker")

    def stop_trainings() -> None:
        for job in sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]:
            sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])

    failed = run(QUICK, meanwhile=stop_trainings)
    assert_failed_safely(failed, "ml_engineering.train", deployed, told)


def test_model_below_the_threshold_is_not_registered(
    deployed: Run, run: Callable[..., Run], told: Callable[[str], list[dict[str, str]]]
) -> None:
    packages = client("sagemaker").list_model_packages(ModelPackageGroupName=f"{CLUSTER}-pets")
    failed = run({"pictures": 300, "epochs": 1, "learning_rate": 1e-6})
    assert_failed_safely(failed, "ml_engineering.accept", deployed, told)
    after = client("sagemaker").list_model_packages(ModelPackageGroupName=f"{CLUSTER}-pets")
    assert len(after["ModelPackageSummaryList"]) == len(packages["ModelPackageSummaryList"])


@pytest.fixture
def broken_application() -> Iterator[None]:
    """The source of the application's image, with a health that always fails."""
    codebuild, s3 = client("codebuild"), client("s3")
    [project] = codebuild.batch_get_projects(names=[f"{CLUSTER}-pets-application"])["projects"]
    bucket, _, key = project["source"]["location"].partition("/")
    good = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    bad = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "ml/pets/application.py":
                assert UNHEALTHY[0].encode() in content
                content = content.replace(UNHEALTHY[0].encode(), UNHEALTHY[1].encode())
            target.writestr(name, content)
    s3.put_object(Bucket=bucket, Key=key, Body=bad.getvalue())
    yield
    s3.put_object(Bucket=bucket, Key=key, Body=good)


@pytest.mark.usefixtures("broken_application")
def test_unhealthy_application_never_gets_the_traffic(
    deployed: Run, run: Callable[..., Run], told: Callable[[str], list[dict[str, str]]]
) -> None:
    before = serving()["taskDefinition"]
    failed = run(QUICK)
    assert_failed_safely(failed, "deploy", deployed, told)
    assert serving()["taskDefinition"] == before
    status = client("ecs").describe_task_definition(taskDefinition=before)["taskDefinition"]["status"]
    assert status == "ACTIVE"


def test_misspelt_parameter_is_refused(platform: dict[str, Any]) -> None:
    assert platform
    ran: subprocess.CompletedProcess[str] = updraft("run", DAG, "--conf", '{"epoch": 3}')
    assert ran.returncode != 0
    assert "epoch" in ran.stderr
