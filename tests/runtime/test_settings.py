"""What DAGs read of their environment, and the names and tags that their jobs get."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from runtime import settings

VALUES: dict[str, Any] = {
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::123456789012:role/jobs",
    "training_image": "image",
    "data_bucket": "data",
    "model_package_group": "updraft-test-flights",
    "subnet_ids": ["subnet-1"],
    "security_group_ids": ["sg-1"],
    "instance_types": {"training": "ml.g5.xlarge"},
    "max_runtime_seconds": 3600,
    "poll_seconds": 10,
    "monthly_budget_usd": 100,
    "usd_per_hour": {"ml.g5.xlarge": 1.408},
}
PARAMETER = "/updraft/test/workflows"
NAMES = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=120)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "UPDRAFT_PROJECT": "updraft",
        "UPDRAFT_ENVIRONMENT": "test",
        "UPDRAFT_SSM_PREFIX": "/updraft/test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ssm() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("ssm")


def context(**changes: Any) -> dict[str, Any]:
    values = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1} | changes
    return {"ti": SimpleNamespace(**values), "dag_run": SimpleNamespace(bundle_version="abc")}


def test_what_older_stacks_did_not_write_is_absent(ssm: Any) -> None:
    ssm.put_parameter(Name=PARAMETER, Type="String", Value=json.dumps(VALUES))
    read = settings.workflow_settings()
    assert (read.failures_topic_arn, read.insurance) == (None, {})


def test_settings_are_read_and_unknown_keys_are_left_to_newer_runtimes(ssm: Any) -> None:
    ssm.put_parameter(Name=PARAMETER, Type="String", Value=json.dumps(VALUES | {"newer": 1}))
    assert settings.workflow_settings().max_runtime_seconds == 3600


def test_missing_settings_are_named(ssm: Any) -> None:
    partial = {key: value for key, value in VALUES.items() if key not in ("role_arn", "data_bucket")}
    ssm.put_parameter(Name=PARAMETER, Type="String", Value=json.dumps(partial))
    with pytest.raises(ValueError, match="not there: role_arn, data_bucket"):
        settings.workflow_settings()


@given(
    task_id=NAMES,
    run_id=NAMES,
    kind=st.sampled_from(["training", "tuning", "processing", "transform", "model"]),
)
def test_job_name_fits_sagemaker_and_is_the_same_again(task_id: str, run_id: str, kind: str) -> None:
    given_context = context(task_id=task_id, run_id=run_id)
    name = settings.job_name(given_context, kind=kind)
    assert name == settings.job_name(given_context, kind=kind)
    assert len(name) <= (32 if kind == "tuning" else 63)
    assert all(part.isascii() and part.isalnum() for part in name.split("-"))


def test_another_try_run_or_map_index_is_another_job() -> None:
    contexts = [
        context(),
        context(try_number=2),
        context(run_id="x"),
        context(map_index=3),
        context(dag_id="y"),
    ]
    assert len({settings.job_name(each, kind="training") for each in contexts}) == len(contexts)


@given(run_id=NAMES)
def test_tags_say_where_a_job_belongs_in_characters_that_aws_takes(run_id: str) -> None:
    found = {tag["Key"]: tag["Value"] for tag in settings.tags(context(run_id=run_id))}
    assert set(found) == {
        "updraft:project", "updraft:environment", "updraft:dag", "updraft:run", "updraft:task",
        "updraft:map-index", "updraft:bundle-version",
    }  # fmt: skip
    assert found["updraft:bundle-version"] == "abc"
    assert all(len(value) <= 256 for value in found.values())
