"""The host takes what the workflows ask of it: a setting that it refused would break them."""

from pathlib import Path
from typing import Any

import pytest

from dags.flights import jobs
from dags.insurance import jobs as insurance_jobs
from local.sagemaker.service import JOBS, SageMakerService
from local.sagemaker.store import Store
from runtime.sagemaker.requests import in_vpc
from runtime.settings import WorkflowSettings

KINDS = {
    "ProcessingJob": "processing",
    "TrainingJob": "training",
    "HyperParameterTuningJob": "tuning",
    "TransformJob": "transform",
}

SETTINGS = WorkflowSettings(
    region="us-east-1",
    role_arn="arn:aws:iam::000000000000:role/jobs",
    training_image="000000000000.dkr.ecr.us-east-1.amazonaws.com/images:" + "a" * 64,
    data_bucket="data",
    model_package_group="models",
    subnet_ids=["subnet-1", "subnet-2"],
    security_group_ids=["sg-1"],
    instance_types={
        "processing": "ml.m5.large",
        "training": "ml.p3.2xlarge",
        "tuning": "ml.m5.xlarge",
        "transform": "ml.m5.large",
    },
    max_runtime_seconds=3600,
    poll_seconds=1,
    monthly_budget_usd=100,
    usd_per_hour={},
)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("ProcessingJob", jobs.prepare(SETTINGS, prefix="p")),
        (
            "TrainingJob",
            jobs.train(SETTINGS, prefix="p", instance_type=None, hyperparameters={"eta": 0.1, "rounds": 40}),
        ),
        ("HyperParameterTuningJob", jobs.tune(SETTINGS, prefix="p", jobs=3, rounds=40)),
        ("ProcessingJob", jobs.evaluate(SETTINGS, prefix="p", candidates={"trained": "s3://data/m.tar.gz"})),
        ("TransformJob", jobs.transform(SETTINGS, prefix="p", model_name="model")),
        ("TrainingJob", insurance_jobs.train(SETTINGS, prefix="p", hyperparameters={"rounds": 9})),
        ("ProcessingJob", insurance_jobs.evaluate(SETTINGS, prefix="p", model_uri="s3://data/m.tar.gz")),
        ("TransformJob", insurance_jobs.score(SETTINGS, prefix="p", model_name="model")),
    ],
    ids=[
        "prepare",
        "train",
        "tune",
        "evaluate",
        "transform",
        "insurance train",
        "insurance evaluate",
        "insurance score",
    ],
)
def test_request_of_the_workflow_is_taken(tmp_path: Path, kind: str, request_: dict[str, Any]) -> None:
    service = SageMakerService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")
    container = {"Image": SETTINGS.training_image, "ModelDataUrl": "s3://data/m.tar.gz"}
    service.call(
        "CreateModel",
        {"ModelName": "model", "PrimaryContainer": container, "ExecutionRoleArn": SETTINGS.role_arn},
    )
    named = in_vpc(KINDS[kind], request_, SETTINGS) | {
        JOBS[kind][0]: "flights-1",
        "Tags": [{"Key": "updraft:dag", "Value": "flights"}],
    }
    assert service.call(f"Create{kind}", named)[JOBS[kind][1]].endswith("/flights-1")


def test_training_after_a_clear_has_nothing_to_go_on_from() -> None:
    build = jobs.build(SETTINGS, prefix="p", point={"max_depth": 4, "n_estimators": 20})
    train = jobs.train(SETTINGS, prefix="p", instance_type=None, hyperparameters={"rounds": 40})
    assert [request for request in (build, train) if "CheckpointConfig" in request] == []


@pytest.mark.parametrize(
    ("kind", "request_", "way"),
    [
        ("training", {}, ("VpcConfig",)),
        ("processing", {"NetworkConfig": {"EnableNetworkIsolation": True}}, ("NetworkConfig", "VpcConfig")),
        ("tuning", {"TrainingJobDefinition": {}}, ("TrainingJobDefinition", "VpcConfig")),
    ],
)
def test_job_runs_in_the_vpc_unless_it_names_a_network(
    kind: str, request_: dict[str, Any], way: tuple[str, ...]
) -> None:
    found: Any = in_vpc(kind, request_, SETTINGS)
    for key in way:
        found = found[key]
    assert found == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    own = {"Subnets": ["own"], "SecurityGroupIds": ["own"]}
    assert in_vpc("training", {"VpcConfig": own}, SETTINGS)["VpcConfig"] == own
