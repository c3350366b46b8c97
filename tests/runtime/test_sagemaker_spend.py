"""What one described job costs in a month, and how the month's jobs are asked for."""

import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber

from runtime.sagemaker.kinds import KINDS, cluster, instances
from runtime.sagemaker.requests import SPOT_WAIT_FACTOR
from runtime.sagemaker.spend import BILLED_KINDS, LONGEST_JOB, Entry, entry, priced, spent_this_month
from runtime.sagemaker.spend_memory import SpendMemory
from stacks.sections import Workflows

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
MONTH = datetime(2026, 3, 1, tzinfo=UTC)
PRICES = {"ml.g5.xlarge": 3.6, "ml.m5.large": 0.36}


def training(**changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "n-1", "TrainingJobArn": "arn:n", "TrainingJobStatus": "Completed",
        "CreationTime": NOW, "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
    } | changes  # fmt: skip


def test_month_is_listed_in_the_largest_pages() -> None:
    client = boto3.client(
        "sagemaker", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with Stubber(client) as stub:
        for kind in BILLED_KINDS:
            asked = {"NameContains": "updraft-test", "CreationTimeAfter": ANY, "SortBy": "CreationTime", "SortOrder": "Ascending", "MaxResults": 100}  # fmt: skip
            stub.add_response(KINDS[kind].list, {KINDS[kind].summaries: []}, asked)
        asked = {
            "NameContains": "updraft-test",
            "SortBy": "CreationTime",
            "SortOrder": "Ascending",
            "MaxResults": 100,
        }
        stub.add_response("list_endpoints", {"Endpoints": []}, asked)
        assert spent_this_month(client, prefix="updraft-test", prices=PRICES, now=NOW) == (0, [])
        stub.assert_no_pending_responses()


def test_longest_job_of_any_configuration_is_listed() -> None:
    [longest] = [
        each.le for each in Workflows.model_fields["max_runtime_seconds"].metadata if hasattr(each, "le")
    ]
    assert timedelta(seconds=SPOT_WAIT_FACTOR * longest) < LONGEST_JOB


def test_running_job_costs_until_now_on_every_instance() -> None:
    config = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 4}
    started = NOW - timedelta(seconds=100)
    found = entry("training", training(TrainingJobStatus="InProgress", TrainingStartTime=started, ResourceConfig=config), PRICES, NOW)  # fmt: skip
    assert found.billable_seconds == 100
    assert found.usd == pytest.approx(0.4)


@pytest.mark.parametrize("kind", BILLED_KINDS)
def test_job_that_runs_since_last_month_costs_from_the_months_start(kind: str) -> None:
    names = KINDS[kind]
    config = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1}
    job = training() | {
        names.name_key: "n", names.arn_key: "arn:n", names.status_key: "InProgress",
        f"{names.prefix}StartTime": MONTH - timedelta(days=2),
        "ProcessingResources": {"ClusterConfig": config}, "TransformResources": config,
    }  # fmt: skip
    found = entry(kind, job, PRICES, NOW)
    assert (found.billable_seconds, found.usd) == (36_000, 36)


def test_spot_job_over_the_end_of_a_month_is_cut_in_the_share_of_its_time() -> None:
    spot = training(
        TrainingStartTime=MONTH - timedelta(hours=3), TrainingEndTime=MONTH + timedelta(hours=1),
        TrainingTimeInSeconds=8000, BillableTimeInSeconds=2000,
    )  # fmt: skip
    found = entry("training", spot, PRICES, NOW)
    assert (found.seconds, found.billable_seconds) == (2000, 500)


@pytest.mark.parametrize(
    ("pool", "seconds"),
    [
        (None, 0),
        ({"Status": "InUse"}, 0),
        ({"Status": "Available"}, 300),
        ({"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 250}, 250),
        ({"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 200}, 200),
        ({"Status": "Terminated"}, 0),
    ],
)
def test_warm_pool_is_paid_on_every_instance(pool: dict[str, Any] | None, seconds: int) -> None:
    job = training(
        TrainingStartTime=NOW - timedelta(seconds=400), TrainingEndTime=NOW - timedelta(seconds=300),
        ResourceConfig={"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
    ) | ({"WarmPoolStatus": pool} if pool else {})  # fmt: skip
    found = entry("training", job, PRICES, NOW)
    assert (found.billable_seconds, found.pool_seconds) == (100, seconds)
    assert found.usd == pytest.approx((100 + seconds) * 2 / 1000)


def test_instances_of_groups_are_paid_at_their_own_prices() -> None:
    groups = [
        {"InstanceGroupName": "a", "InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        {"InstanceGroupName": "b", "InstanceType": "ml.m5.large", "InstanceCount": 2},
        {"InstanceGroupName": "c", "InstanceType": "ml.m5.large", "InstanceCount": 1},
    ]
    job = training(
        TrainingStartTime=NOW - timedelta(hours=1),
        TrainingEndTime=NOW,
        ResourceConfig={"InstanceGroups": groups},
    )
    assert entry("training", job, PRICES, NOW).usd == pytest.approx(3.6 + 3 * 0.36)
    assert cluster("training", job) == ("ml.g5.xlarge, ml.m5.large", 4)


@pytest.mark.parametrize(
    ("kind", "job", "expected"),
    [
        ("training", {}, {"unknown": 1}),
        ("training", {"ServerlessJobConfig": {}}, {"serverless": 1}),
        ("training", {"ResourceConfig": {"InstancePreferences": []}}, {"unknown": 1}),
        ("training", {"ResourceConfig": {"InstancePreferences": [{"InstanceType": "a"}], "InstanceCount": 2}}, {"a": 2}),
        (
            "training",
            {"ResourceConfig": {"InstancePreferences": [{"InstanceType": "a"}], "SelectedInstanceType": "b", "SelectedInstanceCount": 3}},
            {"b": 3},
        ),
        ("tuning", {"TrainingJobDefinitions": []}, {"unknown": 1}),
    ],
)  # fmt: skip
def test_instances_of_a_job(kind: str, job: dict[str, Any], expected: dict[str, int]) -> None:
    assert instances(kind, job) == expected


class Bucket:
    """One object; `content` is None before it is written."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content = content
        self.key = ""

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        assert Bucket == "data"
        self.key = Key
        if self.content is None:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
        return {"Body": io.BytesIO(self.content)}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        assert (Bucket, Key) == ("data", self.key)
        self.content = Body


def test_remembered_lines_come_back_as_they_were() -> None:
    started = NOW - timedelta(hours=1)
    lines = [
        entry("training", training(TrainingStartTime=started, TrainingEndTime=NOW), PRICES, NOW),
        entry("training", training(TrainingJobArn="arn:m", TuningJobArn="arn:t"), PRICES, NOW),
    ]
    bucket = Bucket()
    memory = SpendMemory(bucket, "data", NOW)
    assert memory.read() == {}
    memory.write({each.arn: each for each in lines})
    assert bucket.key == "spend/2026-03.json"
    assert memory.read() == {each.arn: each for each in lines}


@pytest.mark.parametrize("content", [b"", b"{}x", b"[1]", b'[{"arn": "a"}]', b'{"a": 1}', b"\xff"])
def test_memory_that_is_damaged_is_none(content: bytes) -> None:
    assert SpendMemory(Bucket(content), "data", NOW).read() == {}


def test_remembered_line_is_paid_at_todays_prices() -> None:
    line = entry(
        "training", training(TrainingStartTime=NOW - timedelta(hours=1), TrainingEndTime=NOW), {}, NOW
    )
    assert line.usd is None
    assert priced(line, PRICES).usd == pytest.approx(3.6)
    assert priced(priced(line, PRICES), {}).usd is None


@pytest.mark.parametrize(
    ("changes", "remembered"),
    [
        ({}, True),
        ({"TrainingJobStatus": "InProgress"}, False),
        ({"TrainingJobStatus": "Stopping"}, False),
        ({"WarmPoolStatus": {"Status": "Available"}}, False),
        ({"WarmPoolStatus": {"Status": "InUse"}}, False),
        ({"WarmPoolStatus": {"Status": "Terminated"}}, True),
    ],
)
def test_only_what_costs_nothing_more_is_remembered(changes: dict[str, Any], remembered: bool) -> None:
    job = training(TrainingStartTime=NOW, TrainingEndTime=NOW) | changes

    class Client:
        described = 0

        def get_paginator(self, operation: str) -> Any:
            kind = {"list_training_jobs": "TrainingJobSummaries", "list_processing_jobs": "ProcessingJobSummaries",
                    "list_transform_jobs": "TransformJobSummaries", "list_endpoints": "Endpoints"}[operation]  # fmt: skip
            page = {kind: [job] if operation == "list_training_jobs" else []}
            return SimpleNamespace(paginate=lambda **_: [page])

        def describe_training_job(self, **_: Any) -> dict[str, Any]:
            self.described += 1
            return job

    client, known = Client(), dict[str, Entry]()
    for _ in range(2):
        spent_this_month(client, prefix="n", prices=PRICES, now=NOW, known=known)
    assert (list(known), client.described) == ((["arn:n"], 1) if remembered else ([], 2))
